"""Automatic retries: what failed becomes New again in the very transaction that notes the failure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.rollback import FORGOTTEN, start_anew
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.core.retries import RetryPolicy, pause_before

BAD = FINAL - {MajorStatus.DONE}
OF_CURRENT_ATTEMPT = ("sequence", "runner", "lost", "batchId", "hostname")


@dataclass(frozen=True)
class Ended:
    """An instance that is about to stay Failed or Terminated; ``lost``: as somebody concluded from silence."""

    id: ObjectId
    job: ObjectId
    status: MajorStatus
    minor_status: str
    lost: bool
    retried: int


def start_again(database: Database, ended: Sequence[Ended], session: ClientSession) -> list[Ended]:
    """Make those New whose job's policy says so, after a pause, and return them.

    Of one that was lost the attempt stays current until the next claim: if it was only silent, its end still counts.
    """
    jobs = _jobs_that_retry(database, {one.job for one in ended}, session)
    updates, again = [], []
    for one in ended:
        job = jobs.get(one.job)
        pause = pause_before(_policy(job), one.retried, one.minor_status) if job else None
        if job is None or pause is None:
            continue
        fresh = {"retried": one.retried + 1, "not_before": clock.now() + pause, "paused": bool(job.get("paused"))}
        fresh |= {} if one.lost else {"handed_out": False}
        forgotten = [name for name in FORGOTTEN if not (one.lost and name in OF_CURRENT_ATTEMPT)]
        updates.append(UpdateOne({"_id": one.id}, start_anew(fresh, forgotten)))
        again.append(one)
    if updates:
        database.instances.bulk_write(updates, ordered=False, session=session)
    return again


def _jobs_that_retry(
    database: Database, jobs: Iterable[ObjectId], session: ClientSession
) -> dict[ObjectId, Document]:
    if not (ids := list(jobs)):
        return {}
    wanted = {"_id": {"$in": ids}, "retries": {"$gt": 0}, "removing": {"$ne": True}}
    found = database.jobs.find(wanted, {"retries": 1, "retry_on": 1, "paused": 1}, session=session)
    return {job["_id"]: job for job in found}


def _policy(job: Document) -> RetryPolicy:
    return RetryPolicy(job["retries"], job.get("retry_on") or ())
