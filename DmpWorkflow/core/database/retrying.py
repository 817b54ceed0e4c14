"""Automatic retries: what failed becomes New again in the very transaction that notes the failure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.rollback import FORGOTTEN, start_anew
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.core.retries import RetryPolicy, pause_before

BAD = FINAL - {MajorStatus.DONE}
HOST_AVOIDED = "HostAvoided"
MOST_AVOIDED = 5  # times that an instance is kept from black holes, before it runs on one after all
OTHERS_FIRST = 2  # times that it is kept from a host that failed it before
AVOIDING_PAUSE = timedelta(minutes=2)
OF_CURRENT_ATTEMPT = ("sequence", "runner", "lost", "batchId", "hostname")


@dataclass(frozen=True)
class Ended:
    """An instance that is about to stay Failed or Terminated.

    ``lost``: as somebody concluded from silence; ``avoided``: times that it was kept from a host, which is why
    it ends here if its minor status says so.
    """

    id: ObjectId
    job: ObjectId
    status: MajorStatus
    minor_status: str
    lost: bool
    retried: int
    avoided: int = 0


def start_again(database: Database, ended: Sequence[Ended], session: ClientSession) -> list[Ended]:
    """Make those New whose job's policy says so, after a pause, and return them.

    Of one that was lost the attempt stays current until the next claim: if it was only silent, its end still counts.
    """
    jobs = _jobs(database, {one.job for one in ended}, session)
    updates, again = [], []
    for one in ended:
        job = jobs.get(one.job)
        fresh = _fresh(job, one) if job else None
        if fresh is None:
            continue
        forgotten = [name for name in FORGOTTEN if not (one.lost and name in OF_CURRENT_ATTEMPT)]
        updates.append(UpdateOne({"_id": one.id}, start_anew(fresh, forgotten)))
        again.append(one)
    if updates:
        database.instances.bulk_write(updates, ordered=False, session=session)
    return again


def _fresh(job: Document, one: Ended) -> Document | None:
    """Return with what an instance starts again; None: it does not."""
    if one.minor_status == HOST_AVOIDED and one.avoided < MOST_AVOIDED:
        return _new(job, AVOIDING_PAUSE) | {"avoided": one.avoided + 1, "handed_out": False}  # no retry of the job's
    policy = RetryPolicy(job.get("retries", 0), job.get("retry_on") or ())
    pause = pause_before(policy, one.retried, one.minor_status)
    if pause is None:
        return None
    return _new(job, pause) | {"retried": one.retried + 1} | ({} if one.lost else {"handed_out": False})


def _new(job: Document, pause: timedelta) -> Document:
    return {"waits_until": clock.now() + pause, "paused": bool(job.get("paused"))}


def _jobs(database: Database, jobs: Iterable[ObjectId], session: ClientSession) -> dict[ObjectId, Document]:
    if not (ids := list(jobs)):
        return {}
    wanted = {"_id": {"$in": ids}, "removing": {"$ne": True}}
    found = database.jobs.find(wanted, {"retries": 1, "retry_on": 1, "paused": 1}, session=session)
    return {job["_id"]: job for job in found}
