"""What happened in which hour: starts and ends of jobs and sites, failures by reason, and hosts by day.

Statistics for people, not for decisions: they are written after the transaction that they tell of, so that a crash
in between may leave some out. What is exact are the counters (counts.py).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
COUNTED = frozenset({MajorStatus.RUNNING}) | FINAL
LONGEST_WORD = 120  # characters of a reason or a host that are kept


@dataclass(frozen=True)
class Change:
    """An instance, or a number of them, came into a status."""

    job: ObjectId
    site: str
    status: MajorStatus
    minor_status: str = ""
    hostname: str = ""
    number: int = 1


def note(database: Database, changes: Iterable[Change]) -> None:
    """Count these changes in the present hour and day."""
    now = clock.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    happened, failures, hosts = _count([change for change in changes if change.status in COUNTED])
    for collection, writes in (
        (database.activity, [_increment(scope, hour, {"scope": scope}, words) for scope, words in happened.items()]),
        (database.failures, [_failure(key, hour, number) for key, number in failures.items()]),
        (database.hosts, [_host(key, hour.replace(hour=0), words) for key, words in hosts.items()]),
    ):
        if writes:
            collection.bulk_write(writes, ordered=False)


def _count(
    changes: Sequence[Change],
) -> tuple[dict[str, Counter[str]], Counter[tuple[str, str, str]], dict[tuple[str, str], Counter[str]]]:
    happened: dict[str, Counter[str]] = {}
    failures: Counter[tuple[str, str, str]] = Counter()
    hosts: dict[tuple[str, str], Counter[str]] = {}
    for change in changes:
        for scope in (of_site(change.site), of_job(change.job)):
            happened.setdefault(scope, Counter())[change.status] += change.number
        if change.status in FINAL and change.hostname:
            key = (change.site, change.hostname[:LONGEST_WORD])
            hosts.setdefault(key, Counter())[change.status] += change.number
        if change.status in (MajorStatus.FAILED, MajorStatus.TERMINATED):
            failures[change.site, str(change.status), change.minor_status[:LONGEST_WORD]] += change.number
    return happened, failures, hosts


def _increment(key: str, time: datetime, facts: Document, words: Mapping[str, int]) -> UpdateOne:
    return UpdateOne(
        {"_id": f"{key}|{time:%Y%m%d%H}"},
        {"$inc": dict(words), "$setOnInsert": facts | {"time": time}},
        upsert=True,
    )


def _failure(key: tuple[str, str, str], hour: datetime, number: int) -> UpdateOne:
    site, status, minor = key
    facts = {"site": site, "status": status, "minor_status": minor}
    return _increment("|".join(key), hour, facts, {"number": number})


def _host(key: tuple[str, str], day: datetime, words: Mapping[str, int]) -> UpdateOne:
    site, host = key
    return _increment(f"{site}|{host}", day, {"site": site, "hostname": host}, words)


def of_site(site: str) -> str:
    """Return the scope of all that happens at a site."""
    return f"site:{site}"


def of_job(job: ObjectId) -> str:
    """Return the scope of all that happens to a job's instances."""
    return f"job:{job}"


def hours(database: Database, scopes: Sequence[str], since: datetime) -> list[Document]:
    """Return starts and ends per hour, summed over the scopes, the oldest first: time, Running, Done, Failed ..."""
    totals: dict[datetime, Counter[str]] = {}
    for found in database.activity.find({"scope": {"$in": list(scopes)}, "time": {"$gte": since}}):
        totals.setdefault(found["time"], Counter()).update({word: found.get(word, 0) for word in COUNTED})
    return [{"time": time} | dict(totals[time]) for time in sorted(totals)]


def ended_per_hour(database: Database, jobs: Sequence[ObjectId], over: timedelta = 6 * HOUR) -> dict[ObjectId, float]:
    """Return how many instances of each job ended per hour, from its first end within the last hours on."""
    now = clock.now()
    scopes = {of_job(job): job for job in jobs}
    ended: Counter[ObjectId] = Counter()
    first: dict[ObjectId, datetime] = {}
    for found in database.activity.find({"scope": {"$in": list(scopes)}, "time": {"$gte": now - over}}):
        job = scopes[found["scope"]]
        ended[job] += sum(found.get(str(status), 0) for status in FINAL)
        first[job] = min(first.get(job, now), found["time"])
    return {job: number / max((now - first[job]) / HOUR, 0.25) for job, number in ended.items()}


def failure_reasons(database: Database, sites: Sequence[str], since: datetime, most: int) -> list[Document]:
    """Return the most frequent failures since then: site, status, minor_status, number."""
    key = {"site": "$site", "status": "$status", "minor_status": "$minor_status"}
    found = database.failures.aggregate(
        [
            {"$match": {"site": {"$in": list(sites)}, "time": {"$gte": since}}},
            {"$group": {"_id": key, "number": {"$sum": "$number"}}},
            {"$sort": {"number": -1, "_id": 1}},
            {"$limit": most},
        ]
    )
    return [group["_id"] | {"number": group["number"]} for group in found]


def hosts(database: Database, site: str, since: datetime, most: int) -> list[Document]:
    """Return hosts of a site, those that fail most first: hostname, done, failed, terminated, rate (0 to 1).

    They are ordered by the lower end of what the rate may be, so that one failure of one does not come first.
    """
    sums: Document = {
        name: {"$sum": {"$ifNull": [f"${status}", 0]}}
        for name, status in (("done", "Done"), ("failed", "Failed"), ("terminated", "Terminated"))
    }
    match = {"site": site, "time": {"$gte": since.replace(hour=0, minute=0, second=0, microsecond=0)}}
    found = database.hosts.aggregate([{"$match": match}, {"$group": {"_id": "$hostname"} | sums}])
    rows = [_rated(group) for group in found]
    return sorted(rows, key=lambda row: (-row["at_least"], -row["failed"], row["hostname"]))[:most]


def _rated(group: Mapping[str, Any]) -> Document:
    bad, total = group["failed"] + group["terminated"], group["done"] + group["failed"] + group["terminated"]
    rate = bad / total if total else 0.0
    return {
        "hostname": group["_id"], "done": group["done"], "failed": group["failed"], "terminated": group["terminated"],
        "rate": rate, "at_least": _lower_bound(rate, total),
    }  # fmt: skip


def _lower_bound(rate: float, total: int) -> float:
    """Return the lower end of the Wilson interval at 95 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927))."""
    if not total:
        return 0.0
    z = 1.96
    centre = rate + z * z / (2 * total)
    spread = z * (rate * (1 - rate) / total + z * z / (4 * total * total)) ** 0.5
    return float((centre - spread) / (1 + z * z / total))
