"""Backup: the whole database as it was at one moment, in one file, while work goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pymongo.errors import OperationFailure

import DmpWorkflow
from DmpWorkflow.core.database import clock, schema
from DmpWorkflow.core.database.archive import Header, Writer
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.utils.errors import Conflict, Unavailable
from DmpWorkflow.utils.files import private_file

BATCH = 2000  # documents at once, unless they are large: who reads the file holds as many in memory
FIRST_WITH_SNAPSHOTS = 5  # of MongoDB's versions
MOMENT_IS_GONE = (239, 246)  # MongoDB's codes SnapshotTooOld, SnapshotUnavailable


class MomentGone(Unavailable):
    """The backup took longer than MongoDB keeps a moment."""

    REMEDY = (
        "the backup took longer than MongoDB keeps a moment (300 s by default): let each member keep it longer "
        "(db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600})), and repeat it"
    )


def back_up(database: Database, target: Path, replace: bool = False) -> Document:
    """Write the database to ``target`` (mode 0600, whole or not at all) and return the documents by collection.

    Raises Conflict if there is such a file, unless ``replace`` is given, or if MongoDB is too old; ConfigurationError
    for half a database; Unavailable if it took too long.
    """
    if target.exists() and not replace:
        raise Conflict(f"{target} exists: choose another name, or replace it (--replace)")
    if (version := database.client.server_info()["versionArray"])[0] < FIRST_WITH_SNAPSHOTS:
        raise Conflict(
            f"MongoDB {version[0]}.{version[1]} cannot be read as it was at one moment: use mongodump --oplog, or "
            f"MongoDB {FIRST_WITH_SNAPSHOTS} or newer"
        )
    schema.check_whole(database)
    header = Header(database.name, clock.now(), schema.version(database), DmpWorkflow.__version__)
    with _plainly(), private_file(target) as stream:
        writer = Writer(stream, header)
        for collection, documents in _batches(database):
            writer.add(collection, documents)
        writer.finish()
    return dict(writer.documents)


def _batches(database: Database) -> Iterator[tuple[str, bytes]]:
    """Return collections with documents as MongoDB stores them, all of one moment."""
    source = database.client.get_database(database.name)  # a snapshot has a read concern of its own
    names = [name for name in source.list_collection_names() if not name.startswith("system.")]
    with database.client.start_session(snapshot=True) as session:
        source["setting"].find_one(session=session)  # from here on, all is read as it is now
        for name in sorted(names):
            for batch in source[name].find_raw_batches(session=session, batch_size=BATCH):
                yield name, cast(bytes, batch)  # its type says documents


@contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code in MOMENT_IS_GONE:
            raise MomentGone(MomentGone.REMEDY) from error
        raise
