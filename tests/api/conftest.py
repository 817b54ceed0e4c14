import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from pymongo import WriteConcern

from DmpWorkflow.core.database import clock, schema
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.mongod import EmbeddedMongod

Pass = Callable[[timedelta], datetime]

numbers = itertools.count()
COLLECTIONS = {document._meta["collection"] for document in DOCUMENTS}


@pytest.fixture(scope="session")
def used(mongod: EmbeddedMongod) -> Iterator[list[Database]]:
    """The database of the test before, if it is as good as new: its indexes cost a second of CPU."""
    kept: list[Database] = []
    yield kept
    for opened in kept:
        opened.close()


@pytest.fixture
def database(mongod: EmbeddedMongod, used: list[Database]) -> Iterator[Database]:
    """An empty database, for this test only."""
    opened = used.pop() if used else Database(mongod.uri, f"test_{next(numbers)}")
    opened.prepare() if not opened.jobs.index_information() else schema.note_version(opened)
    indexes = _indexes(opened)
    yield opened
    if _indexes(opened) == indexes and set(opened.jobs.database.list_collection_names()) <= COLLECTIONS:
        for name in COLLECTIONS:
            opened.collection(name).with_options(write_concern=WriteConcern(1)).delete_many({})
        used.append(opened)
    else:
        opened.client.drop_database(opened.name)
        opened.close()


def _indexes(database: Database) -> int:
    stats = database.jobs.database.command("dbStats")
    return int(stats["indexes"])


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Let time pass."""
    now = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: now[0])

    def later(time: timedelta) -> datetime:
        now[0] += time
        return now[0]

    return later
