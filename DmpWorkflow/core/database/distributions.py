"""How CPU time, memory and wall time of a job's attempts are distributed, in bins of equal width on a log scale.

Statistics, as activity.py: one small document per job, whatever the number of its instances.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from DmpWorkflow.core.database.connection import Database, Document

BINS_PER_DECADE = 8
LOWEST, HIGHEST = -8, 80  # bins: from 0.1 to 10^10


@dataclass(frozen=True)
class Used:
    """What an attempt used in the end: CPU seconds, peak memory in MB, wall seconds, and what it might use.

    ``events`` is how many it made, if it succeeded.
    """

    job: ObjectId
    cpu: float | None
    memory: float | None
    wall: float | None
    cpu_max: float | None = None
    mem_max: float | None = None
    events: int = 0


QUANTITIES = {"cpu": "s", "memory": "MB", "wall": "s"}


def note(database: Database, ended: Iterable[Used]) -> None:
    """Count these attempts."""
    bins: dict[ObjectId, Counter[str]] = {}
    limits: dict[ObjectId, Document] = {}
    for used in ended:
        counter = bins.setdefault(used.job, Counter())
        for name in QUANTITIES:
            value = getattr(used, name)
            if value is not None:
                counter[f"{name}.{_bin(value)}"] += 1
        if used.cpu is not None and used.wall:
            counter["cpu_seconds"] += round(used.cpu)
            counter["wall_seconds"] += round(used.wall)
        if used.events:
            counter["events"] += used.events
        given = {"cpu_max": used.cpu_max, "mem_max": used.mem_max}
        limits.setdefault(used.job, {}).update({name: value for name, value in given.items() if value})
    writes = [_write(job, counter, limits[job]) for job, counter in bins.items() if counter]
    if writes:
        database.distributions.bulk_write(writes, ordered=False)


def _write(job: ObjectId, counter: Counter[str], limits: Document) -> UpdateOne:
    update: dict[str, Any] = {"$inc": dict(counter)} | ({"$set": limits} if limits else {})
    return UpdateOne({"_id": job}, update, upsert=True)


def _bin(value: float) -> int:
    if value <= 0:
        return LOWEST
    return min(max(math.floor(math.log10(value) * BINS_PER_DECADE), LOWEST), HIGHEST)


def of_job(database: Database, job: ObjectId) -> Document:
    """Return for cpu, memory and wall: edges (one more than values) and values; limits, and the efficiency.

    The efficiency is CPU time over wall time of all attempts that told both; None if there was none.
    """
    found = database.distributions.find_one({"_id": job}) or {}
    wall = found.get("wall_seconds", 0)
    return {name: _histogram(found.get(name, {})) for name in QUANTITIES} | {
        "cpu_max": found.get("cpu_max"),
        "mem_max": found.get("mem_max"),
        "efficiency": found["cpu_seconds"] / wall if wall else None,
    }


def _histogram(bins: dict[str, int]) -> Document:
    if not bins:
        return {"edges": [], "values": []}
    numbers = [int(number) for number in bins]
    span = range(min(numbers), max(numbers) + 1)
    edges = [10 ** (number / BINS_PER_DECADE) for number in (*span, span.stop)]
    return {"edges": edges, "values": [bins.get(str(number), 0) for number in span]}


def events(database: Database, jobs: Sequence[ObjectId]) -> dict[ObjectId, int]:
    """Return how many events the successful attempts of these jobs told, where any did."""
    found = database.distributions.find({"_id": {"$in": list(jobs)}, "events": {"$gt": 0}}, {"events": 1})
    return {one["_id"]: one["events"] for one in found}


def forget(database: Database, job: ObjectId) -> None:
    """Remove what is known of a job."""
    database.distributions.delete_one({"_id": job})
