"""Instances of a job: filtered, in any order, page by page; also the numbers of all that match, for orders.

Numbers and statuses are found by an index, whatever the number of instances. Other filters and orders look at each
instance in these bounds, for a limited time.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.errors import ExecutionTimeout

from DmpWorkflow.core.database import listing
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput

BY_NUMBER = "number"
FIELDS: Mapping[str, str] = {
    BY_NUMBER: "instanceId",
    "last_update": "last_update",
    "host": "hostname",
    "attempt": "attempt",
    "cpu_peak": "cpu_peak",
    "memory_peak": "memory_peak",
}
ANY = ("", "Any")
MOST_MILLISECONDS = 2_000  # for a page
MOST_MILLISECONDS_OF_AN_ORDER = 60_000  # for the numbers of all that match


class TooMany(InvalidInput):
    """There are too many instances to look through: narrow it by status or numbers."""


@dataclass(frozen=True)
class InstanceFilter:
    """Which instances of a job; what is empty matches all.

    Numbers: ``n_min`` < number <= ``n_max``. ``text`` is part of the log, letter for letter.
    """

    statuses: tuple[MajorStatus, ...] = ()
    minor_status: str = ""
    host: str = ""
    n_min: int | None = None
    n_max: int | None = None
    text: str = ""

    def query(self, job: ObjectId) -> Document:
        """Return it as a query for the instances of ``job``."""
        query: Document = {"job": job}
        if self.statuses:
            query["status"] = {"$in": [str(status) for status in self.statuses]}
        bounds = {"$gt": self.n_min, "$lte": self.n_max}
        if given := {operator: bound for operator, bound in bounds.items() if bound is not None}:
            query["instanceId"] = given
        exact = {"minor_status": self.minor_status, "hostname": self.host}
        query |= {name: value for name, value in exact.items() if value}
        if self.text:
            query["log"] = {"$regex": re.escape(self.text)}
        return query


def statuses(text: str) -> tuple[MajorStatus, ...]:
    """Return the statuses named in ``text``, with commas between them ("Any": all); raises InvalidInput."""
    if text in ANY:
        return ()
    return tuple(listing.status_of(word.strip()) for word in text.split(","))


def search(
    database: Database,
    job: ObjectId,
    chosen: InstanceFilter,
    sort: str = BY_NUMBER,
    descending: bool = False,
    limit: int = 100,
    after: str = "",
) -> tuple[list[Document], int | str | None]:
    """Return a page of instances in the order of ``sort`` (of FIELDS), and the cursor after which the next begins.

    Raises InvalidInput for an order or a cursor that there is not, and TooMany where it would take too long.
    """
    if sort not in FIELDS:
        raise InvalidInput(f"sort {sort!r}: expected one of {', '.join(FIELDS)}")
    query = chosen.query(job)
    if after:
        query = {"$and": [query, _behind(sort, descending, *_cursor(after, sort))]}
    direction = -1 if descending else 1
    order = dict.fromkeys((FIELDS[sort], "instanceId"), direction)
    with _limited():
        found = list(
            database.instances.find(
                query, listing.ROW_FIELDS, sort=list(order.items()), limit=limit + 1, max_time_ms=MOST_MILLISECONDS
            )
        )
    rows = [listing.instance_row(instance) for instance in found[:limit]]
    return rows, _cursor_after(found[limit - 1], sort) if len(found) > limit else None


def numbers(database: Database, job: ObjectId, chosen: InstanceFilter) -> list[int]:
    """Return the numbers of all instances that match, in their order; raises TooMany where it would take too long."""
    with _limited():
        found = database.instances.find(
            chosen.query(job),
            {"instanceId": 1, "_id": 0},
            sort=[("instanceId", 1)],
            max_time_ms=MOST_MILLISECONDS_OF_AN_ORDER,
        )
        return [instance["instanceId"] for instance in found]


@contextmanager
def _limited() -> Iterator[None]:
    try:
        yield
    except ExecutionTimeout:
        raise TooMany from None


def _behind(sort: str, descending: bool, number: int, value: Any) -> Document:
    """Return what comes after an instance; those without a value come first, or last if ``descending``."""
    further = "$lt" if descending else "$gt"
    if sort == BY_NUMBER:
        return {"instanceId": {further: number}}
    field = FIELDS[sort]
    same = {field: value, "instanceId": {further: number}}
    if value is None:
        return same if descending else {"$or": [same, {field: {"$ne": None}}]}
    others = [{field: {further: value}}, *([{field: None}] if descending else [])]
    return {"$or": [same, *others]}


def _cursor_after(instance: Document, sort: str) -> int | str:
    number: int = instance["instanceId"]
    value = instance.get(FIELDS[sort])
    if sort == BY_NUMBER or value is None:
        return number
    return f"{number}-{round(value.timestamp() * 1000) if isinstance(value, datetime) else value}"


def _cursor(text: str, sort: str) -> tuple[int, Any]:
    number, has_value, value = text.partition("-")
    try:
        return _number(number), _READERS[sort](value) if has_value else None
    except (ValueError, KeyError, OverflowError, OSError):
        raise InvalidInput(f"after: {text[:40]!r} is no cursor: take the one that the last page named") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError
    return int(text)


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(_number(text) / 1000, UTC)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "last_update": _time,
    "host": str,
    "attempt": _number,
    "cpu_peak": float,
    "memory_peak": float,
}
