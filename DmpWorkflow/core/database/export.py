"""Instances as CSV or JSON, written while they are read: never all of them in memory."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import Any

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.instance_search import InstanceFilter
from DmpWorkflow.core.database.work import iso

# The names of the columns, and of the fields behind them.
COLUMNS: Mapping[str, str] = {
    "slug": "slug",
    "number": "instanceId",
    "status": "status",
    "minor_status": "minor_status",
    "attempt": "attempt",
    "hostname": "hostname",
    "batch_id": "batchId",
    "created_at": "created_at",
    "last_update": "last_update",
    "cpu_peak": "cpu_peak",
    "memory_peak": "memory_peak",
    "Nevents": "Nevents",
}
ROWS_AT_ONCE = 1000
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def rows(database: Database, job: Document, chosen: InstanceFilter) -> Iterator[Document]:
    """Iterate over the instances of ``job`` that match, in the order of their numbers, with COLUMNS in each."""
    found = database.instances.find(
        chosen.query(job["_id"]),
        dict.fromkeys(COLUMNS.values(), 1) | {"_id": 0},
        sort=[("instanceId", 1)],
        batch_size=ROWS_AT_ONCE,
    )
    with found:
        for instance in found:
            values = {"slug": job["slug"]} | instance
            yield {column: _plain(values.get(field)) for column, field in COLUMNS.items()}


def as_csv(found: Iterable[Document]) -> Iterator[str]:
    """Return rows as CSV with a header, some thousand lines at a time; no cell can be a formula."""
    lines = chain([list(COLUMNS)], (map(_cell, row.values()) for row in found))
    while some := list(islice(lines, ROWS_AT_ONCE)):
        text = io.StringIO()
        csv.writer(text).writerows(some)
        yield text.getvalue()


def as_json(found: Iterable[Document]) -> Iterator[str]:
    """Return rows as a JSON list, one in each line."""
    lines = (json.dumps(row, ensure_ascii=False) for row in found)
    separator = "[\n"
    while some := list(islice(lines, ROWS_AT_ONCE)):
        yield separator + ",\n".join(some)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
