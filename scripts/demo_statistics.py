"""Writes what happened into the collections that charts and rankings are made of, as the program does."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReplaceOne

import DmpWorkflow
from DmpWorkflow.core.database import activity, black_holes, distributions, snapshots
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from scripts.demo_instances import HOLE_SINCE, QUARTER, Tally
from scripts.demo_plan import HOUR, SITES, SPAN, DemoSite

BEATS = 6  # of an agent in a quarter of an hour
COMPLAINTS_SINCE = timedelta(hours=2)
Document = dict[str, Any]
Counts = dict[str, dict[str, int]]  # by site and status


def write(database: Database, tally: Tally, now: datetime) -> None:
    """Add what happened to the statistics."""
    _write_changes(database, tally)
    _write_streaks(database, tally, now)
    over_time = dict(_over_time(tally, now))
    _add_snapshots(database, over_time)
    held = {
        time: {site: sum(found[str(status)] for status in ACTIVE) for site, found in counts.items()}
        for time, counts in over_time.items()
    }
    for site in SITES:
        _write_agents(database, site, {time: found.get(site.name, 0) for time, found in held.items()}, now)


def _write_changes(database: Database, tally: Tally) -> None:
    happened: dict[tuple[str, int], Counter[str]] = {}
    for (scope, hour, status), number in tally.changes.items():
        happened.setdefault((scope, hour), Counter())[status] += number
    hosts: dict[tuple[str, str, int], Counter[str]] = {}
    for (site, host, day, status), number in tally.hosts.items():
        hosts.setdefault((site, host, day), Counter())[status] += number
    changes = [
        activity._increment(scope, _at(hour * HOUR), {"scope": scope}, words)
        for (scope, hour), words in happened.items()
    ]
    failures = [
        activity._failure((site, status, minor), _at(hour * HOUR), number)
        for (site, status, minor, hour), number in tally.failures.items()
    ]
    ends = [activity._host((site, host), _at(day * 24 * HOUR), words) for (site, host, day), words in hosts.items()]
    used = [distributions._write(job, bins, LIMITS) for job, bins in tally.used.items() if bins]
    for collection, writes in (
        (database.activity, changes),
        (database.failures, failures),
        (database.hosts, ends),
        (database.distributions, used),
    ):
        if writes:
            collection.bulk_write(writes, ordered=False)


def _write_streaks(database: Database, tally: Tally, now: datetime) -> None:
    """Keep which hosts succeeded last, and of those that fail all that they get how many that are."""
    today = int(now.timestamp() // (24 * HOUR))
    ends: dict[tuple[str, str], Counter[str]] = {}
    for (site, host, day, status), number in tally.hosts.items():
        if day >= today - 1:
            ends.setdefault((site, host), Counter())[status] += number
    jobs = {site.name: database.jobs.distinct("_id", {"execution_site": site.name}) for site in SITES}
    holes = {(site.name, site.host(site.hole)) for site in SITES if site.hole is not None}
    since = _at(now.timestamp() - HOLE_SINCE)
    writes = []
    for (site, host), words in ends.items():
        streak: Document = {"site": site, "hostname": host, "since": since, "last": now, "failed": 0, "jobs": []}
        if (site, host) in holes:
            streak |= {"failed": words["Failed"], "jobs": jobs[site][-black_holes.JOBS_KEPT :]}
        elif words["Done"]:
            streak["done_at"] = now
        writes.append(ReplaceOne({"_id": f"{site}|{host}"}, streak, upsert=True))
    if writes:
        database.streaks.bulk_write(writes, ordered=False)


LIMITS: Document = {"cpu_max": 86400.0, "mem_max": 4000.0}


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _over_time(tally: Tally, now: datetime) -> Iterable[tuple[datetime, Counts]]:
    """Yield each quarter of an hour until now with the counts as they were at its begin."""
    moves: dict[int, list[tuple[str, str, int]]] = {}
    for (site, quarter, status), number in tally.moves.items():
        moves.setdefault(quarter, []).append((site, status, number))
    present: Counts = {}
    end = int(snapshots.quarter(now).timestamp() // QUARTER)
    for quarter in range(end - int(SPAN.total_seconds() // QUARTER), end + 1):
        for site, status, number in moves.get(quarter, ()):
            counts = present.setdefault(site, {str(word): 0 for word in MajorStatus})
            counts[status] += number
        yield _at(quarter * QUARTER), {site: dict(counts) for site, counts in present.items()}


def _add_snapshots(database: Database, over_time: Mapping[datetime, Counts]) -> None:
    """Keep these counts, on top of those that are kept of the same times."""
    known = {found["_id"]: found["sites"] for found in database.snapshots.find({"_id": {"$gte": min(over_time)}})}
    writes = []
    for time, counts in over_time.items():
        sites = {part["site"]: Counter(part["counts"]) for part in known.get(time, [])}
        for site, found in counts.items():
            sites.setdefault(site, Counter()).update(found)
        parts = [{"site": site, "counts": dict(found)} for site, found in sites.items()]
        kept = {"time": time, "hourly": time.minute == 0, "sites": parts}
        writes.append(ReplaceOne({"_id": time}, kept, upsert=True))
    database.snapshots.bulk_write(writes, ordered=False)


def _write_agents(database: Database, site: DemoSite, held: Mapping[datetime, int], now: datetime) -> None:
    last = now - timedelta(seconds=site.quiet) if site.silent else now - timedelta(seconds=40)
    for name in site.agents:
        kept = [
            _beats(site, name, time, number // len(site.agents), now) for time, number in held.items() if time <= last
        ]
        database.beats.delete_many({"site": site.name, "agent": name})
        database.beats.insert_many(kept, ordered=False)
        beat = {
            "hostname": f"{name}.{site.domain}", "version": DmpWorkflow.__version__, "problem": site.problem or None,
            "last_beat": last, "holds": kept[-1]["holds"],
        }  # fmt: skip
        database.agents.update_one({"site": site.name, "agent": name}, {"$set": beat}, upsert=True)


def _beats(site: DemoSite, agent: str, time: datetime, holds: int, now: datetime) -> Document:
    problem = site.problem if time > now - COMPLAINTS_SINCE else ""
    if not problem and time.day % 9 == 3 and time.hour == 4:  # once in a while, everywhere
        problem = "the server answered 503: the database does not answer"
    told: Document = {
        "_id": f"{site.name}|{agent}|{time:%Y%m%d%H%M}", "site": site.name, "agent": agent, "time": time,
        "holds": holds, "beats": BEATS,
    }  # fmt: skip
    return told | ({"problem": problem} if problem else {})
