"""Orders to end instances: what waits ends at once, what a batch system has ends when that confirms it."""

from collections.abc import Sequence
from functools import partial

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import activity, audit, clock, counts, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from DmpWorkflow.utils.parts import in_parts

CHUNK = 1000
KILLED_BY_USER = "KilledByUser"


def kill(database: Database, job: ObjectId, numbers: Sequence[int]) -> tuple[int, int]:
    """End these instances of ``job``; return how many ended at once, and how many the agents are told to end.

    One that an agent has claimed and not submitted yet ends at once as well: nothing of it can start any more.
    Final ones stay as they are.
    """
    ended = ordered = 0
    if numbers:  # before it begins, so that there is a row also of what a crash cut short
        after = {"instances": audit.spans(numbers), "number": len(numbers)}
        audit.note(database, "instances.kill", audit.job_target(database, job), after=after)
    for chunk in in_parts(numbers, CHUNK):
        ended += database.transaction(partial(_end_waiting, database, job, chunk))
        active = {"job": job, "instanceId": {"$in": chunk}, "status": {"$in": [str(status) for status in ACTIVE]}}
        ordered += database.instances.update_many(active, {"$set": {"kill": True}}).matched_count
    if ended:
        site = jobs.by_id(database, job)["execution_site"]
        change = activity.Change(job, site, MajorStatus.TERMINATED, KILLED_BY_USER, number=ended)
        activity.note(database, [change])
    return ended, ordered


def _end_waiting(database: Database, job: ObjectId, numbers: Sequence[int], session: ClientSession) -> int:
    now = clock.now()
    status = {"status": str(MajorStatus.TERMINATED), "minor_status": KILLED_BY_USER}
    update: Document = {
        "$set": status | {"last_update": now, "claimable": False, "active": False, "lost": False},
        "$unset": {"claim": "", "waits_until": ""},
        "$push": {"status_history": status | {"update": now}},
    }
    waiting = {"job": job, "instanceId": {"$in": list(numbers)}, "status": str(MajorStatus.NEW)}
    ended = database.instances.update_many(waiting, update, session=session).modified_count
    counts.change(database, job, {MajorStatus.NEW: -ended, MajorStatus.TERMINATED: ended}, session)
    return ended
