"""Restore: the database becomes what it was at its backup, and no attempt since then is mistaken for a new one.

While it is filled a mark keeps servers from it, so that nobody works on half a database.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bson.raw_bson import RawBSONDocument
from pymongo.write_concern import WriteConcern

from DmpWorkflow.core.database import archive, attempt_numbers, clock, maintenance, migrations, schema
from DmpWorkflow.core.database.archive import Contents, Reader, split
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.credentials import SESSION_KEY_ID
from DmpWorkflow.utils.errors import ConfigurationError, Conflict, DmpWorkflowError

CLOCKS_DIFFER = timedelta(hours=1)  # at most, between the machines of a backup and of its restore
SETTINGS = "setting"


@dataclass(frozen=True)
class Restored:
    """What was restored, what a comparison of the counts says, and the number that new attempts exceed."""

    contents: Contents
    counts: str
    floor: int


def check(database: Database, path: Path, replace: str | None = None) -> Contents:
    """Return what is in the backup, read to its end, if it can be restored into ``database``.

    Raises DamagedBackup, ConfigurationError (of a newer program) or Conflict (the database is not empty, and
    ``replace`` is not its name).
    """
    contents = archive.verify(path)
    if contents.header.schema > schema.VERSION:
        raise ConfigurationError(
            f"{path} has schema {contents.header.schema}, and this program knows {schema.VERSION}: "
            "upgrade the program"
        )
    if replace is not None and replace != database.name:
        raise Conflict(f"--replace {replace} is not the name of the database, which is {database.name}")
    if replace is None and not _is_free(database):
        raise Conflict(
            f"database {database.name} is not empty: restore into another one, or, once all servers are stopped, "
            f"replace what is in it (--replace {database.name})"
        )
    return contents


def _is_free(database: Database) -> bool:
    """Say whether nothing would be lost: nothing is in it, or what an interrupted restore left."""
    if database.settings.find_one({"_id": schema.RESTORING_ID}):
        return True
    return not any(database.collection(name).find_one({}, {"_id": 1}) for name in _others(database))


def _others(database: Database) -> list[str]:
    """Return the collections, less the one that a server makes when it starts, and MongoDB's own."""
    names = database.client.get_database(database.name).list_collection_names()
    return [name for name in names if name != SETTINGS and not name.startswith("system.")]


def restore(database: Database, path: Path, replace: str | None = None) -> Restored:
    """Fill ``database`` from a backup; raises what ``check`` raises, before anything is changed.

    An interrupted restore leaves a mark that servers refuse, and is repeated as a whole.
    """
    contents = check(database, path, replace)
    _mark(database, path, "begun")
    _empty(database)
    _fill(database, path)
    _mark(database, path, "filled")  # this write waits for a majority, and so for all those before it
    _compare(database, contents)
    migrations.bring_up(database)
    database.make_indexes()
    counts = maintenance.compare_counts(database)
    floor = _fence(database, contents)
    database.settings.delete_one({"_id": SESSION_KEY_ID})  # who was logged out since then stays so
    database.settings.delete_one({"_id": schema.RESTORING_ID})
    return Restored(contents, counts, floor)


def _mark(database: Database, path: Path, step: str) -> None:
    value = {"file": str(path), "step": step}
    database.settings.update_one({"_id": schema.RESTORING_ID}, {"$set": {"value": value}}, upsert=True)


def _empty(database: Database) -> None:
    for name in _others(database):
        database.collection(name).drop()
    database.settings.delete_many({"_id": {"$ne": schema.RESTORING_ID}})


def _fill(database: Database, path: Path) -> None:
    target = database.client.get_database(database.name, write_concern=WriteConcern(1))
    with Reader(path) as reader:
        for collection, documents in reader.batches():
            target[collection].insert_many(map(RawBSONDocument, split(documents)), ordered=False)


def _compare(database: Database, contents: Contents) -> None:
    """Count what arrived, before indexes let old statistics expire."""
    for name, expected in contents.documents.items():
        mark = 1 if name == SETTINGS else 0
        stored = database.collection(name).count_documents({}) - mark
        if stored != expected:
            raise DmpWorkflowError(
                f"{expected} documents of {name} were restored, and {stored} are there: repeat it, with no server "
                "running"
            )


def _fence(database: Database, contents: Contents) -> int:
    """Let new attempts have numbers that none since the backup can have had, and return which they exceed.

    An instance is handed out once in a second at most, so this holds also if the same backup is restored again.
    """
    since = max(clock.now() - contents.header.moment, timedelta()) + CLOCKS_DIFFER
    floor = max(contents.highest_attempt, attempt_numbers.floor(database)) + int(since.total_seconds())
    attempt_numbers.raise_floor(database, floor)
    return floor
