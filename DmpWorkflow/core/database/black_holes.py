"""Black holes: hosts that fail everything quickly, and so draw in all the work of a site.

A host is one after many quick failures in a row, while another host of the site succeeded since, and so did one of
the jobs that failed on it: a broken job fails everywhere, and makes no black hole. This is noted after the
transaction that it tells of, like other statistics.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bson import ObjectId
from pymongo import UpdateOne

from DmpWorkflow.core.database import activity, clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.retries import FailureClass, failure_class

ENOUGH = 10  # failures in a row
QUICK = timedelta(minutes=15)  # of wall time
AGAIN_AFTER = timedelta(hours=1)  # a host without work for so long gets another try
FORGOTTEN_AFTER = timedelta(days=1)  # without another failure
MOST_SUSPECTS = 100  # that are looked at
JOBS_KEPT = 20  # of a host, the last ones that failed on it

Host = tuple[str, str]  # site and name


@dataclass(frozen=True)
class End:
    """An attempt that ended on a host after ``wall``; None: it hardly began."""

    host: Host
    job: ObjectId
    status: MajorStatus
    minor_status: str
    wall: timedelta | None

    @property
    def is_quick_failure(self) -> bool:
        """Whether it may be the host's fault."""
        blame = failure_class(self.minor_status) in (FailureClass.SITE, FailureClass.PAYLOAD)
        return self.status is MajorStatus.FAILED and blame and (self.wall is None or self.wall < QUICK)


@dataclass(frozen=True)
class BlackHole:
    """A host that fails everything, and how many attempts in a row it failed."""

    site: str
    hostname: str
    failed: int


@dataclass
class _Streak:
    failed: int = 0
    succeeded: bool = False
    jobs: list[ObjectId] = field(default_factory=list)


def note(database: Database, ends: Iterable[End]) -> None:
    """Count failures in a row; a success ends the row."""
    streaks: dict[Host, _Streak] = {}
    for end in ends:
        site, hostname = end.host
        if not hostname:
            continue
        host = (site, hostname[: activity.LONGEST_WORD])
        if end.status is MajorStatus.DONE:
            streaks[host] = _Streak(succeeded=True)
        elif end.is_quick_failure:
            streak = streaks.setdefault(host, _Streak())
            streak.failed += 1
            streak.jobs.append(end.job)
    if streaks:
        database.streaks.bulk_write([_write(host, streak) for host, streak in streaks.items()], ordered=False)


def _write(host: Host, streak: _Streak) -> UpdateOne:
    now = clock.now()
    jobs = list(dict.fromkeys(streak.jobs))
    known = {"site": host[0], "hostname": host[1]}
    if streak.succeeded:
        anew = {"failed": streak.failed, "jobs": jobs, "since": now, "last": now, "done_at": now}
        return UpdateOne({"_id": "|".join(host)}, {"$set": known | anew}, upsert=True)
    return UpdateOne(
        {"_id": "|".join(host)},
        {
            "$inc": {"failed": streak.failed},
            "$push": {"jobs": {"$each": jobs, "$slice": -JOBS_KEPT}},
            "$set": {"last": now},
            "$setOnInsert": known | {"since": now},
        },
        upsert=True,
    )


def of_sites(database: Database, sites: Sequence[str]) -> list[BlackHole]:
    """Return the black holes of these sites, the worst first."""
    suspects = database.streaks.find(
        {"site": {"$in": list(sites)}, "failed": {"$gte": ENOUGH}, "last": {"$gt": clock.now() - FORGOTTEN_AFTER}},
        sort=[("failed", -1)],
        limit=MOST_SUSPECTS,
    )
    return [
        BlackHole(found["site"], found["hostname"], found["failed"])
        for found in suspects
        if _is_hosts_fault(database, found)
    ]


def to_avoid(database: Database, hosts: Iterable[Host]) -> set[Host]:
    """Return those of the hosts that are black holes, less those that are due for another try."""
    ids = ["|".join((site, name[: activity.LONGEST_WORD])) for site, name in hosts]
    recent = {"_id": {"$in": ids}, "failed": {"$gte": ENOUGH}, "last": {"$gt": clock.now() - AGAIN_AFTER}}
    suspects = database.streaks.find(recent) if ids else ()
    return {(found["site"], found["hostname"]) for found in suspects if _is_hosts_fault(database, found)}


def has_other(database: Database, host: Host) -> bool:
    """Say whether another host of the site had a success not long ago."""
    return _others_succeeded(database, host, clock.now() - AGAIN_AFTER)


def _others_succeeded(database: Database, host: Host, since: datetime) -> bool:
    site, hostname = host
    other = {"site": site, "hostname": {"$ne": hostname}, "done_at": {"$gt": since}}
    return database.streaks.find_one(other, {"_id": 1}) is not None


def _is_hosts_fault(database: Database, streak: Document) -> bool:
    """Say whether others at the site, and one of the same jobs, succeeded since the row of failures began."""
    since: datetime = streak["since"]
    if not _others_succeeded(database, (streak["site"], streak["hostname"]), since):
        return False
    scopes = [activity.of_job(job) for job in streak["jobs"]]
    hour = since.replace(minute=0, second=0, microsecond=0)
    succeeded = {"scope": {"$in": scopes}, "time": {"$gte": hour}, "Done": {"$gt": 0}}
    return database.activity.find_one(succeeded, {"_id": 1}) is not None
