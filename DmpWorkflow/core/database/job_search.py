"""Jobs as lists show them: filtered, in any order, page by page.

There are thousands of jobs, not millions. The order of their making is an index's; for any other order the values of
all jobs that match are read, without their XML, and the page's own jobs after that.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bson import ObjectId
from bson.errors import InvalidId

from DmpWorkflow.core.database import counts, listing
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.counts import Counts
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.utils.errors import InvalidInput

BY_TIME = "created"
NAMES = {"title": "title", "site": "execution_site", "type": "type"}
LONGEST_CURSOR = 1024  # characters


@dataclass(frozen=True)
class JobFilter:
    """Which jobs; what is empty matches all.

    ``text`` is part of title, slug, owner or a tag, in any case; ``status`` one that instances of the job are in now;
    ``archived`` None takes those with the others. Made at ``since`` or later, and before ``until``.
    """

    text: str = ""
    title: str = ""
    type: str = ""
    site: str = ""
    status: str = ""
    owner: str = ""
    tag: str = ""
    archived: bool | None = False
    since: datetime | None = None
    until: datetime | None = None


class Page(NamedTuple):
    """Some of the jobs that match, the cursor of the page that follows if there is one, and how many match in all."""

    rows: list[Document]
    next: str | None
    matching: int


def _progress(count: Counts) -> float:
    total = sum(count.values())
    return sum(count[status] for status in FINAL) / total if total else 0.0


# What jobs are sorted by that follows from their counts.
FIGURES: Mapping[str, Callable[[Counts], float]] = {
    "progress": _progress,
    "failed": lambda count: float(count[MajorStatus.FAILED]),
    "total": lambda count: float(sum(count.values())),
}
SORTS = (BY_TIME, *NAMES, *FIGURES)


def search(
    database: Database,
    chosen: JobFilter,
    sort: str = BY_TIME,
    descending: bool = True,
    limit: int = 50,
    after: str = "",
) -> Page:
    """Return a page of jobs in the order of ``sort`` (one of SORTS), those behind the cursor ``after``.

    Raises InvalidInput for a status, an order or a cursor that there is not.
    """
    if sort not in SORTS:
        raise InvalidInput(f"sort {sort!r}: expected one of {', '.join(SORTS)}")
    cursor = _cursor(after, sort) if after else None
    if sort == BY_TIME and not chosen.status:
        return _by_time(database, _query(chosen), descending, limit, cursor)
    return _by_value(database, chosen, sort, descending, limit, cursor)


def _query(chosen: JobFilter) -> Document:
    given = {
        "title": chosen.title,
        "type": chosen.type,
        "execution_site": chosen.site,
        "owner": chosen.owner,
        "tags": chosen.tag,
    }
    query: Document = {name: value for name, value in given.items() if value}
    if chosen.archived is not None:
        query["archived"] = True if chosen.archived else {"$ne": True}  # older jobs do not say
    if made := {op: time for op, time in (("$gte", chosen.since), ("$lt", chosen.until)) if time}:
        query["created_at"] = made
    if chosen.text:
        part = {"$regex": re.escape(chosen.text), "$options": "i"}
        query["$or"] = [{name: part} for name in ("title", "slug", "owner", "tags")]
    return query


def _by_time(
    database: Database, query: Document, descending: bool, limit: int, cursor: tuple[Any, ObjectId] | None
) -> Page:
    direction = -1 if descending else 1
    behind = [_behind(*cursor, descending)] if cursor else []
    order = [("created_at", direction), ("_id", direction)]
    found = list(database.jobs.find({"$and": [query, *behind]}, listing.JOB_FIELDS, sort=order, limit=limit + 1))
    following = None
    if len(found) > limit:
        last = found[limit - 1]
        following = f"{_milliseconds(last['created_at'])}-{last['_id']}"
    return Page(listing.with_counts(database, found[:limit]), following, database.jobs.count_documents(query))


def _behind(milliseconds: int, last: ObjectId, descending: bool) -> Document:
    further = "$lt" if descending else "$gt"
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return {"$or": [{"created_at": {further: time}}, {"created_at": time, "_id": {further: last}}]}


def _by_value(
    database: Database,
    chosen: JobFilter,
    sort: str,
    descending: bool,
    limit: int,
    cursor: tuple[Any, ObjectId] | None,
) -> Page:
    keys = sorted(_keys(database, chosen, sort), reverse=descending)
    shown = [key for key in keys if cursor is None or (key < cursor if descending else key > cursor)]
    page = shown[:limit]
    following = f"{page[-1][0]}-{page[-1][1]}" if len(shown) > limit else None
    return Page(listing.with_counts(database, _in_order(database, page)), following, len(keys))


def _keys(database: Database, chosen: JobFilter, sort: str) -> list[tuple[Any, ObjectId]]:
    """Return what each job that matches is sorted by, and its id."""
    field = NAMES.get(sort, "created_at")
    found = list(database.jobs.find(_query(chosen), {field: 1}))
    status = listing.status_of(chosen.status) if chosen.status else None
    if sort not in FIGURES and status is None:
        return [(job[field], job["_id"]) for job in found]
    totals = counts.of_jobs(database, [job["_id"] for job in found])
    if status is not None:
        found = [job for job in found if totals[job["_id"]][status]]
    if sort in FIGURES:
        return [(FIGURES[sort](totals[job["_id"]]), job["_id"]) for job in found]
    return [(_milliseconds(job[field]) if sort == BY_TIME else job[field], job["_id"]) for job in found]


def _in_order(database: Database, keys: Sequence[tuple[Any, ObjectId]]) -> list[Document]:
    ids = [job for _, job in keys]
    found = {job["_id"]: job for job in database.jobs.find({"_id": {"$in": ids}}, listing.JOB_FIELDS)}
    return [found[job] for job in ids if job in found]


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _cursor(text: str, sort: str) -> tuple[Any, ObjectId]:
    value, _, last = text[:LONGEST_CURSOR].rpartition("-")
    read = _READERS.get(sort, str)
    try:
        return read(value), ObjectId(last)
    except (ValueError, TypeError, InvalidId):
        raise InvalidInput(f"before: {text[:40]!r} is no cursor: take the one that the last page named") from None


def _time(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 15):
        raise ValueError
    return int(text)


def _figure(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


_READERS: Mapping[str, Callable[[str], Any]] = {BY_TIME: _time} | dict.fromkeys(FIGURES, _figure)
