"""Changes of a job that leave its definition alone: priority, tags, retries, pause, archive; and its removal.

A removal marks the job first, so that nothing of it is handed out any more; then instances go chunk by chunk, their
counters in the same transaction; the job itself goes last. After a crash, removing it again completes that.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import audit, children, clock, counts, distributions, jobs, pausing
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from DmpWorkflow.core.retries import checked_words
from DmpWorkflow.utils.errors import Conflict, InvalidInput

MOST_TAGS = 20
TAG = re.compile(r"[\w.:+-]{1,32}")
CHUNK = 1000  # instances removed in one transaction


@dataclass(frozen=True)
class JobChanges:
    """What to change; None leaves it."""

    priority: int | None = None
    tags: Sequence[str] | None = None
    archived: bool | None = None
    retries: int | None = None
    retry_on: Sequence[str] | None = None
    lost_after: int | None = None  # seconds; 0: as the server's settings say
    paused: bool | None = None
    by: str = ""  # who changes it


def change(database: Database, job: Document, changes: JobChanges) -> None:
    """Change ``job``, in everything or nothing; raises InvalidInput (a tag) or Conflict (it cannot be archived)."""
    values: Document = {} if changes.tags is None else {"tags": checked_tags(changes.tags)}
    values |= {} if changes.priority is None else {"priority": changes.priority}
    values |= {} if changes.archived is None else {"archived": changes.archived}
    values |= {} if changes.retries is None else {"retries": changes.retries}
    values |= {} if changes.retry_on is None else {"retry_on": checked_words(changes.retry_on)}
    values |= {} if changes.lost_after is None else {"lost_after": changes.lost_after or None}
    if values:
        database.transaction(partial(_change, database, job, values))
    if changes.paused is not None:
        _pause_or_resume(database, job, changes.paused, changes.by)
    if changes.priority is not None:  # of those that a roll-back makes New again, too
        other = {"job": job["_id"], "priority": {"$ne": changes.priority}}
        database.instances.update_many(other, {"$set": {"priority": changes.priority}})


def _pause_or_resume(database: Database, job: Document, paused: bool, by: str) -> None:
    jobs.check_open(database, job["_id"])
    if paused:
        pausing.pause(database, job["_id"], f"by {by or 'somebody'}")
    else:
        pausing.resume(database, job["_id"])
    before, after = ({"paused": bool(value)} for value in (job.get("paused"), paused))
    audit.note(database, "job.change", f"job/{job['slug']}", before, after)


def checked_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags, each once; raises InvalidInput for too many, or one that is no short word."""
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise InvalidInput(f"tag {tag[:40]!r}: expected a word of 1 to 32 letters, digits and _ . : + -")
    if len(unique := list(dict.fromkeys(tags))) > MOST_TAGS:
        raise InvalidInput(f"tags: {len(unique)} of them, at most {MOST_TAGS}")
    return unique


def _change(database: Database, job: Document, values: Document, session: ClientSession) -> None:
    if values.get("archived"):
        _check_over(database, job, session)
    found = database.jobs.find_one_and_update({"_id": job["_id"]}, {"$set": values}, session=session)
    if found:
        before, after = audit.changed(found, values)
        audit.note(database, "job.change", f"job/{job['slug']}", before, after, session=session)


def _check_over(database: Database, job: Document, session: ClientSession) -> None:
    counts.lock(database, job["_id"], session)  # no status changes while we look
    unfinished = {"job": job["_id"], "status": {"$in": [str(status) for status in (MajorStatus.NEW, *ACTIVE)]}}
    found = database.instances.find_one(unfinished, {"instanceId": 1, "status": 1}, session=session)
    if found:
        raise Conflict(
            f"job {job['title']!r} cannot be archived: instance {found['instanceId']} is {found['status']}: "
            "wait until all are over, or kill them"
        )
    if database.jobs.find_one({"_id": job["_id"], "creations": {"$ne": []}}, {"_id": 1}, session=session):
        raise Conflict(f"job {job['title']!r} cannot be archived: instances of it are being created")


def remove(database: Database, job: Document) -> int:
    """Remove ``job`` with its instances, counters and history; return how many instances went now.

    Raises Conflict, and changes nothing, while instances are active or claimed, or while other jobs depend on it.
    """
    database.transaction(partial(_mark, database, job))
    _end_claims(database, job)
    removed = 0
    while chunk := database.transaction(partial(_remove_chunk, database, job["_id"])):
        removed += chunk
    _check_idle(database, job)
    database.counts.delete_many({"job": job["_id"]})
    distributions.forget(database, job["_id"])
    database.jobs.delete_one({"_id": job["_id"]})
    return removed


def _mark(database: Database, job: Document, session: ClientSession) -> None:
    counts.lock(database, job["_id"], session)  # no status changes, roll-backs or new children while we look
    _check_idle(database, job, session)
    child = database.jobs.find_one({"dependencies": job["_id"]}, {"title": 1}, session=session)
    if child:
        raise Conflict(f"job {job['title']!r} cannot be removed: {child['title']!r} depends on it: remove that first")
    database.jobs.update_one({"_id": job["_id"]}, {"$set": {"removing": True}}, session=session)
    before = audit.about_job(job) | {"allotted": job["allotted"]}
    audit.note(database, "job.remove", f"job/{job['slug']}", before, session=session)


def _check_idle(database: Database, job: Document, session: ClientSession | None = None) -> None:
    busy = database.instances.find_one(jobs.busy(job["_id"]), {"instanceId": 1, "status": 1}, session=session)
    if busy:
        raise Conflict(
            f"job {job['title']!r} cannot be removed: instance {busy['instanceId']} is {busy['status']} or claimed: "
            "wait until it is over, or kill it"
        )


def _end_claims(database: Database, job: Document) -> None:
    """Let nothing be claimed any more; where something was claimed since the mark, take that back and refuse."""
    waiting = {"job": job["_id"], "status": str(MajorStatus.NEW)}
    # Each of them is written, so that a transaction that makes one claimable just now begins anew and sees the mark.
    database.instances.update_many(waiting, {"$set": {"claimable": False, "last_update": clock.now()}})
    try:
        _check_idle(database, job)
    except Conflict:
        if not job.get("removing"):  # else it is partly gone
            database.jobs.update_one({"_id": job["_id"]}, {"$unset": {"removing": ""}})
            database.instances.update_many(waiting, [{"$set": {"claimable": children.IS_READY}}])
        raise


def _remove_chunk(database: Database, job: ObjectId, session: ClientSession) -> int:
    idle = {"job": job, "$nor": [jobs.busy(job)]}
    found = list(database.instances.find(idle, {"status": 1}, session=session, limit=CHUNK))
    if not found:
        return 0
    ids = [instance["_id"] for instance in found]
    database.instances.delete_many({"_id": {"$in": ids}}, session=session)
    gone = Counter(MajorStatus(instance["status"]) for instance in found)
    counts.change(database, job, {status: -number for status, number in gone.items()}, session)
    return len(found)
