"""The life of an attempt as a strip: how long it was in which status. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from DmpWorkflow.core.lifecycle import FINAL

NARROWEST = 0.5  # percent: what took a moment is seen as well


@dataclass(frozen=True)
class Stay:
    """A time in one status; ``start`` and ``width`` are percent of the strip."""

    status: str
    start: float
    width: float
    lasted: timedelta


def stays(history: Sequence[Mapping[str, Any]], end: datetime) -> list[Stay]:
    """Return the times between the changes of status; the last one, unless it is final, goes on until ``end``."""
    times = [datetime.fromisoformat(entry["update"]) for entry in history]
    if not times:
        return []
    last = times[-1] if history[-1]["status"] in FINAL else max(end, times[-1])
    total = max((last - times[0]).total_seconds(), 1.0)
    found = []
    for entry, begin, until in zip(history, times, [*times[1:], last], strict=True):
        lasted = until - begin
        start = 100 * (begin - times[0]).total_seconds() / total
        width = max(100 * lasted.total_seconds() / total, NARROWEST)
        found.append(Stay(entry["status"], min(start, 100 - NARROWEST), width, lasted))
    return found
