"""Instances as rows of an export, read while they are written: never all of them in memory."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.instance_search import InstanceFilter

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


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value
