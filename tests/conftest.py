from collections.abc import Iterator

import pytest

from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.served import served  # noqa: F401 - a fixture for all


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongod]:
    """A real mongod for the whole run, stopped at its end."""
    with EmbeddedMongod(tmp_path_factory.mktemp("mongod")) as running:
        yield running
