import itertools
from collections.abc import Iterator

import pytest

from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod

numbers = itertools.count()


@pytest.fixture
def database(mongod: EmbeddedMongod) -> Iterator[Database]:
    """An empty database of this test's own."""
    opened = Database(mongod.uri, f"test_{next(numbers)}")
    opened.prepare()
    yield opened
    opened.client.drop_database(opened.jobs.database.name)
    opened.close()
