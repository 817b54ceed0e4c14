"""The data catalogue: which files are where, and in which state."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import ExecutionTimeout

from DmpWorkflow.core.database import audit, clock
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.names import check_path
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

STATUSES = ("New", "Copied", "Orphaned")
MOST_FILES = 1000  # in one request
LONGEST_NAME = 1024  # characters; an index key has bounds
SEARCH_MILLISECONDS = 3000  # that the database may look for one page of files
EXPORT_PAGE = 5000  # files read at once by what takes them all
FIELDS = ("filename", "site", "filetype", "status", "created_at", "last_update")


class SearchTooWide(InvalidInput):
    """This search takes too long: choose a site or a status, or begin with how the name begins (/data/...)."""


@dataclass(frozen=True)
class FileQuery:
    """Which files, in which order; empty texts match any.

    ``name`` is the beginning of a name if it begins with "/" or has a "://", and any part of it otherwise.
    """

    name: str = ""
    site: str = ""
    status: str = ""
    filetype: str = ""
    sort: str = "time"

    def as_filter(self) -> Document:
        """Return what the database is asked for."""
        given = {"site": self.site, "status": self.status, "filetype": self.filetype}
        found: Document = {name: value for name, value in given.items() if value}
        if self.name.startswith("/") or "://" in self.name:
            found["filename"] = {"$regex": f"^{re.escape(self.name)}"}  # read from the index of names
        elif self.name:
            found["filename"] = {"$regex": re.escape(self.name), "$options": "i"}
        return found

    def as_order(self) -> list[tuple[str, int]]:
        """Return the order, in a form that an index has."""
        if self.sort == "name":
            return [("filename", 1)] if self.site else [("filename", 1), ("site", 1)]
        return [("created_at", -1), ("_id", -1)]


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
    if known and overwrite:
        before = {"files": [found["filename"] for found in known], "number": len(known)}
        audit.note(database, "files.overwrite", f"files/{site}", before, {"filetype": filetype, "status": status})
    return [str(found["_id"]) for found in known]


def set_status(database: Database, site: str, names: Sequence[str], status: str) -> list[str]:
    """Set the status of files, of all or none, and return their ids; raises NotFound."""
    _check(names, status)
    ids = [found["_id"] for found in _all_known(database, site, names)]
    _set_status(database, {"_id": {"$in": ids}}, status)
    return [str(found) for found in ids]


def delete(database: Database, site: str, names: Sequence[str]) -> list[str]:
    """Remove files, all or none, and return their names; raises NotFound."""
    _check(names, STATUSES[0])
    found = _all_known(database, site, names)
    _delete(database, {"_id": {"$in": [file["_id"] for file in found]}})
    return [file["filename"] for file in found]


def find(database: Database, site: str, status: str, filetype: str, limit: int) -> list[str]:
    """Return names of files, the latest first; empty criteria match any."""
    given = {"site": site, "status": status, "filetype": filetype}
    query = {name: value for name, value in given.items() if value}
    files = database.files.find(query, {"filename": 1}, sort=[("created_at", -1), ("_id", -1)], limit=limit)
    return [file["filename"] for file in files] if limit else []


def page(database: Database, query: FileQuery, limit: int, after: str = "") -> tuple[list[Document], str | None]:
    """Return files as lists show them, and the cursor of the page that follows, if there is one.

    Raises SearchTooWide where the database finds them too slowly, and InvalidInput for what is no cursor.
    """
    asked = query.as_filter()
    if after:
        asked = {"$and": [asked, _beyond(query, after)]}
    files = database.files.find(asked, sort=query.as_order(), limit=limit + 1)
    try:
        found = list(files.max_time_ms(SEARCH_MILLISECONDS))
    except ExecutionTimeout as error:
        raise SearchTooWide from error
    return [_row(file) for file in found[:limit]], _cursor(query, found[limit - 1]) if len(found) > limit else None


def every(database: Database, query: FileQuery) -> Iterator[Document]:
    """Iterate over all files that match, page by page; what ``page`` raises for the first one is raised at once."""
    rows, cursor = page(database, query, EXPORT_PAGE)
    return _rest(database, query, rows, cursor)


def _rest(database: Database, query: FileQuery, rows: list[Document], cursor: str | None) -> Iterator[Document]:
    yield from rows
    while cursor is not None:
        rows, cursor = page(database, query, EXPORT_PAGE, cursor)
        yield from rows


def set_status_of(database: Database, ids: Sequence[ObjectId], status: str, site: str = "") -> int:
    """Set the status of these files, at ``site`` only if one is given, and return of how many."""
    _check((), status)
    return _set_status(database, _these(ids, site), status)


def delete_these(database: Database, ids: Sequence[ObjectId], site: str = "") -> int:
    """Remove these files from the catalogue, at ``site`` only if one is given, and return how many."""
    return _delete(database, _these(ids, site))


def _set_status(database: Database, chosen: Document, status: str) -> int:
    return database.transaction(partial(_set_status_in, database, chosen, status))


def _set_status_in(database: Database, chosen: Document, status: str, session: ClientSession) -> int:
    _note(database, "files.status", chosen, {"status": status}, session)
    change = {"$set": {"status": status, "last_update": clock.now()}}
    return database.files.update_many(chosen, change, session=session).matched_count


def _delete(database: Database, chosen: Document) -> int:
    return database.transaction(partial(_delete_in, database, chosen))


def _delete_in(database: Database, chosen: Document, session: ClientSession) -> int:
    _note(database, "files.delete", chosen, {}, session)
    return database.files.delete_many(chosen, session=session).deleted_count


def _note(database: Database, action: str, chosen: Document, after: Document, session: ClientSession) -> None:
    """Note what happens to these files, with a row for each site."""
    found = list(database.files.find(chosen, {"filename": 1, "site": 1, "status": 1}, session=session))
    for site in sorted({file["site"] for file in found}):
        here = [file for file in found if file["site"] == site]
        before = {
            "files": [file["filename"] for file in here],
            "number": len(here),
            "status": sorted({file["status"] for file in here}),
        }
        audit.note(database, action, f"files/{site}", before, after, session=session)


def _these(ids: Sequence[ObjectId], site: str) -> Document:
    return {"_id": {"$in": list(ids)}} | ({"site": site} if site else {})


def _row(file: Document) -> Document:
    changed = file.get("last_update") or file["created_at"]
    return {"id": str(file["_id"])} | {name: file.get(name, "") for name in FIELDS} | {
        "created_at": iso(file["created_at"]),
        "last_update": iso(changed),
    }  # fmt: skip


def _cursor(query: FileQuery, file: Document) -> str:
    """Return what names the place of a file in the order, as a text for an address."""
    by_name = query.sort == "name"
    place = (
        [file["filename"], file["site"]]
        if by_name
        else [int(file["created_at"].timestamp() * 1000), str(file["_id"])]
    )
    return base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode().rstrip("=")


def _beyond(query: FileQuery, cursor: str) -> Document:
    """Return the condition for what comes after the place that the cursor names."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        first, second = json.loads(text)
        second.encode()
        if query.sort == "name":
            first.encode()
            return {"filename": {"$gte": first}, "$or": [{"filename": {"$gt": first}}, {"site": {"$gt": second}}]}
        time, last = datetime.fromtimestamp(first / 1000, UTC), ObjectId(second)
        return {"created_at": {"$lte": time}, "$or": [{"created_at": {"$lt": time}}, {"_id": {"$lt": last}}]}
    except (ValueError, TypeError, AttributeError, OverflowError, OSError, InvalidId, RecursionError) as error:
        raise InvalidInput(f"after: {cursor[:40]!r} is no cursor: take the one that the last page named") from error


def _check(names: Sequence[str], status: str) -> None:
    if status not in STATUSES:
        raise InvalidInput(f"status {status!r}: expected one of {', '.join(STATUSES)}")
    if len(names) > MOST_FILES:
        raise InvalidInput(f"filename: {len(names)} files, at most {MOST_FILES} at once")
    if not all(0 < len(name) <= LONGEST_NAME for name in names):
        raise InvalidInput(f"filename: every name needs 1 to {LONGEST_NAME} characters")
    for name in names:
        check_path("filename", name)


def _all_known(database: Database, site: str, names: Sequence[str]) -> list[dict[str, Any]]:
    found = list(database.files.find({"site": site, "filename": {"$in": list(names)}}, {"filename": 1}))
    if not found or len(found) < len(set(names)):
        raise NotFound("cannot find file in DB")
    return found
