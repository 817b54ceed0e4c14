"""The data catalogue: which files are where, and in which state."""

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

STATUSES = ("New", "Copied", "Orphaned")
MOST_FILES = 1000  # in one request
LONGEST_NAME = 1024  # characters; an index key has bounds


def register(
    database: Database, site: str, names: Sequence[str], filetype: str, status: str = "New", overwrite: bool = False
) -> list[str]:
    """Enter files and return the ids of those that were there before.

    A file that is known already raises Conflict, unless ``overwrite`` is given or nothing about it is new.
    """
    _check(names, status)
    query = {"site": site, "filename": {"$in": list(names)}}
    known = list(database.files.find(query, {"filename": 1, "filetype": 1}))
    other = [found["filename"] for found in known if found["filetype"] != filetype]
    if other and not overwrite:
        raise Conflict(f"file {other[0]} is registered with another type: overwrite it, or delete it first")
    now = clock.now()
    fresh = {"_cls": "DataFile", "created_at": now}
    entry: dict[str, Any] = {"filetype": filetype, "last_update": now}
    changes = {"$set": entry | ({"status": status} if overwrite else {})}
    changes["$setOnInsert"] = fresh | ({} if overwrite else {"status": status})
    if names:
        database.files.bulk_write(
            [UpdateOne({"site": site, "filename": name}, changes, upsert=True) for name in names]
        )
    return [str(found["_id"]) for found in known]


def set_status(database: Database, site: str, names: Sequence[str], status: str) -> list[str]:
    """Set the status of files, of all or none, and return their ids; raises NotFound."""
    _check(names, status)
    ids = [found["_id"] for found in _all_known(database, site, names)]
    database.files.update_many({"_id": {"$in": ids}}, {"$set": {"status": status, "last_update": clock.now()}})
    return [str(found) for found in ids]


def delete(database: Database, site: str, names: Sequence[str]) -> list[str]:
    """Remove files, all or none, and return their names; raises NotFound."""
    _check(names, STATUSES[0])
    found = _all_known(database, site, names)
    database.files.delete_many({"_id": {"$in": [file["_id"] for file in found]}})
    return [file["filename"] for file in found]


def find(database: Database, site: str, status: str, filetype: str, limit: int) -> list[str]:
    """Return names of files, the latest first; empty criteria match any."""
    given = {"site": site, "status": status, "filetype": filetype}
    query = {name: value for name, value in given.items() if value}
    files = database.files.find(query, {"filename": 1}, sort=[("created_at", -1), ("_id", -1)], limit=limit)
    return [file["filename"] for file in files] if limit else []


def _check(names: Sequence[str], status: str) -> None:
    if status not in STATUSES:
        raise InvalidInput(f"status {status!r}: expected one of {', '.join(STATUSES)}")
    if len(names) > MOST_FILES:
        raise InvalidInput(f"filename: {len(names)} files, at most {MOST_FILES} at once")
    if not all(0 < len(name) <= LONGEST_NAME for name in names):
        raise InvalidInput(f"filename: every name needs 1 to {LONGEST_NAME} characters")


def _all_known(database: Database, site: str, names: Sequence[str]) -> list[dict[str, Any]]:
    found = list(database.files.find({"site": site, "filename": {"$in": list(names)}}, {"filename": 1}))
    if not found or len(found) < len(set(names)):
        raise NotFound("cannot find file in DB")
    return found
