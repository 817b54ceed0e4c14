"""Paused jobs: nothing of them is handed out until somebody resumes them; what runs goes on.

A job whose payload fails many times in a row pauses by itself, before it burns through all of its instances.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import children, counts
from DmpWorkflow.core.database.activity import Change
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.retries import FailureClass, failure_class

PART = 10_000  # instances changed at once


def pause(database: Database, job: ObjectId, reason: str) -> None:
    """Hand nothing of ``job`` out any more; an earlier reason stays."""
    database.transaction(partial(_note_reason, database, job, reason))
    _mark(database, job, {"paused": {"$ne": True}}, [{"$set": {"paused": True, "claimable": False}}])


def _note_reason(database: Database, job: ObjectId, reason: str, session: ClientSession) -> None:
    counts.lock(database, job, session)  # what makes an instance New at this moment begins again, and sees it
    running = {"_id": job, "paused": {"$in": [None, ""]}}
    database.jobs.update_one(running, {"$set": {"paused": reason}}, session=session)


def resume(database: Database, job: ObjectId) -> None:
    """Hand out what there is of ``job``, and count its failures anew."""
    going_on: list[Document] = [{"$unset": "paused"}, {"$set": {"claimable": children.IS_READY}}]
    _mark(database, job, {"paused": True}, going_on)  # first, so that after a crash it can be seen and done again
    database.transaction(partial(_forget_reason, database, job))
    _mark(database, job, {"paused": True}, going_on)  # those that became New meanwhile


def _forget_reason(database: Database, job: ObjectId, session: ClientSession) -> None:
    counts.lock(database, job, session)
    gone = {"$unset": {"paused": "", "failed_in_a_row": ""}}
    database.jobs.update_one({"_id": job}, gone, session=session)


def _mark(database: Database, job: ObjectId, state: Document, update: list[Document]) -> None:
    """Change the instances that wait, in parts by their numbers, so that no claim has to wait for long."""
    last = 0
    waiting = {"job": job, "status": str(MajorStatus.NEW)}
    while True:
        beyond = waiting | {"instanceId": {"$gt": last}}
        part = list(database.instances.find(beyond, {"instanceId": 1}, sort=[("instanceId", 1)], limit=PART))
        if not part:
            return
        first, last = part[0]["instanceId"], part[-1]["instanceId"]
        database.instances.update_many(waiting | state | {"instanceId": {"$gte": first, "$lte": last}}, update)


def note(database: Database, changes: Sequence[Change], limit: int) -> None:
    """Count failures of payloads in a row, and pause jobs that have ``limit`` of them; a limit of 0 pauses none."""
    if not limit:
        return
    done = {change.job for change in changes if change.status is MajorStatus.DONE}
    if done:
        failing = {"_id": {"$in": list(done)}, "failed_in_a_row": {"$gt": 0}}
        database.jobs.update_many(failing, {"$set": {"failed_in_a_row": 0}})
    bad = [change for change in changes if change.status is MajorStatus.FAILED and change.job not in done]
    failed = Counter(change.job for change in bad if failure_class(change.minor_status) is FailureClass.PAYLOAD)
    for job, number in failed.items():
        row = _count(database, job, number)
        if row >= limit:
            last = next(change.minor_status for change in reversed(bad) if change.job == job)
            pause(database, job, f"{row} attempts failed in a row, the last one with {last}")


def _count(database: Database, job: ObjectId, number: int) -> int:
    """Return how many failed in a row; 0 for a job that is paused already."""
    found = database.jobs.find_one_and_update(
        {"_id": job, "paused": {"$in": [None, ""]}},
        {"$inc": {"failed_in_a_row": number}},
        {"failed_in_a_row": 1},
        return_document=ReturnDocument.AFTER,
    )
    return found["failed_in_a_row"] if found else 0
