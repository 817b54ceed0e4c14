"""The reaper: instances that nobody hears of any more get a final status that says why.

In two stages. One that is silent for a while is stalled, which any contact undoes. One that stays stalled is lost:
Failed, and what its payload may still tell of its end counts. The second stage waits from the first one on, so that
after an outage of the server itself everybody has time to come back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import claims, clock, creation
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.reporting import apply_reports
from DmpWorkflow.core.database.status_report import HISTORY_LIMIT, StatusReport
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from DmpWorkflow.core.reports import Outcome, Report

INTERVAL = timedelta(minutes=1)  # between two turns, whichever process has them
TURN = "reaper_turn"
PART = 500  # instances of one write
FIELDS = dict.fromkeys(("instanceId", "site", "attempt", "stalled_since", "last_contact", "claim.agent"), 1)
AGENT_LOST, LOST_CONTACT = "AgentLost", "LostContact"


@dataclass(frozen=True)
class Patience:
    """How long silence is borne.

    Payloads and agents of today give signs of life every few minutes; old clients tell changes of status only, and
    those may take as long as the queue and the payload: ``lost_old`` is for them.
    """

    stalled: timedelta = timedelta(hours=1)
    lost: timedelta = timedelta(hours=24)
    lost_old: timedelta = timedelta(days=7)

    def times(self, quiet: bool, lost_after: int | None) -> tuple[timedelta, timedelta]:
        """Return the silence until an instance is stalled, and from then on until it is lost."""
        lost = timedelta(seconds=lost_after) if lost_after else self.lost_old if quiet else self.lost
        stalled = lost / 2 if quiet else min(self.stalled, lost / 2)
        return stalled, lost - stalled


@dataclass(frozen=True)
class Reaped:
    """What a turn did, or would do."""

    stalled: int = 0
    lost: int = 0


@dataclass(frozen=True)
class _Silent:
    """Instances of one job that are silent for too long, by queries that its index answers."""

    base: Document
    stalling: datetime
    losing: datetime

    @property
    def newly(self) -> Document:
        return self.base | {"stalled_since": None, "last_contact": {"$lte": self.stalling}}

    @property
    def for_good(self) -> Document:
        return self.base | {"stalled_since": {"$lte": self.losing}}


def is_turn(database: Database) -> bool:
    """Say whether it is this process's turn; of many that ask within an interval, one is told so."""
    now = clock.now()
    try:
        database.settings.update_one(
            {"_id": TURN, "value": {"$lte": now}}, {"$set": {"value": now + INTERVAL}}, upsert=True
        )
    except DuplicateKeyError:  # there is one that is not due yet
        return False
    return True


def reap(database: Database, patience: Patience, dry_run: bool = False) -> Reaped:
    """Mark what is silent as stalled, and what stays so as lost; return how many, which is all of a ``dry_run``."""
    stalled = lost = 0
    for silent in _silent(database, patience):
        if dry_run:
            stalled += database.instances.count_documents(silent.newly)
            lost += database.instances.count_documents(silent.for_good)
            continue
        lost += _lose(database, silent.for_good)
        stalled += _stall(database, silent)
    if not dry_run:
        claims.end_waits(database)
        creation.complete_abandoned(database)
    return Reaped(stalled, lost)


def _silent(database: Database, patience: Patience) -> Iterator[_Silent]:
    now = clock.now()
    jobs = _active_jobs(database)
    for job in database.jobs.find({"_id": {"$in": jobs}}, {"execution_site": 1, "lost_after": 1}):
        for quiet in (False, True):
            stalling, losing = patience.times(quiet, job.get("lost_after"))
            base = {"site": job["execution_site"], "job": job["_id"], "active": True}
            base["quiet"] = True if quiet else None
            yield _Silent(base, now - stalling, now - losing)


def _active_jobs(database: Database) -> list[ObjectId]:
    active: Document = {"$add": [{"$ifNull": [f"$status.{status}", 0]} for status in sorted(ACTIVE)]}
    per_job = {"$group": {"_id": "$job", "active": {"$sum": active}}}
    found = database.counts.aggregate([per_job, {"$match": {"active": {"$gt": 0}}}])
    return [group["_id"] for group in found]


def _stall(database: Database, silent: _Silent) -> int:
    now = clock.now()
    unknown = silent.base | {"stalled_since": None, "last_contact": None}  # of data that was taken over
    database.instances.update_many(unknown, [{"$set": {"last_contact": "$last_update"}}])
    entry = {"status": "$status", "minor_status": "Stalled", "update": now}
    history = {"$concatArrays": [{"$ifNull": ["$status_history", []]}, [entry]]}
    mark: Document = {"stalled_since": now, "status_history": {"$slice": [history, -HISTORY_LIMIT]}}
    number = 0
    while ids := [one["_id"] for one in database.instances.find(silent.newly, {"_id": 1}, limit=PART)]:
        chosen = silent.newly | {"_id": {"$in": ids}}
        number += database.instances.update_many(chosen, [{"$set": mark}]).modified_count
    return number


def _lose(database: Database, query: Document) -> int:
    number = 0
    while found := list(database.instances.find(query, FIELDS, limit=PART)):
        beats = _last_beats(database, {one["site"] for one in found})
        reports = [_lost(query["job"], one, beats.get((one["site"], _agent(one)))) for one in found]
        applied = apply_reports(database, reports).count(Outcome.APPLY)
        number += applied
        if not applied:  # all of them were heard of meanwhile, or somebody else reaps
            break
    return number


def _last_beats(database: Database, sites: set[str]) -> dict[tuple[str, str], datetime]:
    found = database.agents.find({"site": {"$in": list(sites)}}, {"site": 1, "agent": 1, "last_beat": 1})
    return {(agent["site"], agent["agent"]): agent["last_beat"] for agent in found}


def _agent(instance: Document) -> str:
    agent: str = instance.get("claim", {}).get("agent", "")
    return agent


def _lost(job: ObjectId, instance: Document, beat: datetime | None) -> StatusReport:
    """Return the conclusion; its log says what it is drawn from."""
    silent_since = instance["last_contact"]
    agent_is_lost = beat is not None and beat <= instance["stalled_since"]
    told = f"given up by the server: no sign of life since {silent_since:%Y-%m-%d %H:%M} UTC"
    if beat is not None:
        told += f"; its agent {_agent(instance)} was last heard of at {beat:%Y-%m-%d %H:%M} UTC"
    return StatusReport(
        job,
        instance["instanceId"],
        Report(MajorStatus.FAILED, instance["attempt"]),
        {"minor_status": AGENT_LOST if agent_is_lost else LOST_CONTACT, "log": told},
        lost=True,
        stalled_since=instance["stalled_since"],
    )
