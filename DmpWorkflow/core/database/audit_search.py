"""The audit log as lists show it: the newest first, read by key."""

from dataclasses import dataclass
from datetime import UTC, datetime

from bson import ObjectId
from bson.errors import InvalidId

from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.utils.errors import InvalidInput

NEWEST_FIRST = [("time", -1), ("_id", -1)]
FIELDS = ("who", "role", "address", "action", "target", "before", "after")


@dataclass(frozen=True)
class AuditQuery:
    """Which rows; what is empty matches any. ``until`` itself is not meant."""

    who: str = ""
    action: str = ""
    target: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def as_filter(self) -> Document:
        """Return what the database is asked for."""
        given = {"who": self.who, "action": self.action, "target": self.target}
        found: Document = {name: value for name, value in given.items() if value}
        bounds = {"$gte": self.since, "$lt": self.until}
        if times := {operator: time for operator, time in bounds.items() if time is not None}:
            found["time"] = times
        return found


def search(database: Database, query: AuditQuery, limit: int, before: str = "") -> tuple[list[Document], str | None]:
    """Return rows, the newest first, and the cursor of the page that follows; raises InvalidInput for no cursor."""
    asked = query.as_filter()
    if before:
        asked = {"$and": [asked, beyond(before)]}
    found = list(database.audit.find(asked, sort=NEWEST_FIRST, limit=limit + 1))
    return [_row(row) for row in found[:limit]], _cursor(found[limit - 1]) if len(found) > limit else None


def _row(stored: Document) -> Document:
    return {"id": str(stored["_id"]), "time": iso(stored["time"])} | {name: stored[name] for name in FIELDS}


def _cursor(row: Document) -> str:
    return f"{int(row['time'].timestamp() * 1000)}-{row['_id']}"


def beyond(cursor: str) -> Document:
    """Return the condition for what comes after the place that the cursor names; raises InvalidInput."""
    time, _, last = cursor.partition("-")
    try:
        moment, row = datetime.fromtimestamp(int(time) / 1000, UTC), ObjectId(last)
    except (ValueError, OverflowError, OSError, InvalidId) as error:
        raise InvalidInput(f"before: {cursor[:40]!r} is no cursor: take the one that the last page named") from error
    return {"time": {"$lte": moment}, "$or": [{"time": {"$lt": moment}}, {"_id": {"$lt": row}}]}
