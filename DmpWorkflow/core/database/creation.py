"""Instances by the million: numbers are given away at once, instances are stored chunk by chunk.

Numbers are allotted by one update of the job, which also notes that they are to be filled. Each chunk is one
transaction (instances, counters, progress), so that a crash leaves a note that the next request completes.
"""

from datetime import timedelta

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import audit, clock, counts, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation_requests import CreationRequest, create_once
from DmpWorkflow.core.database.resolution import check_overrides
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Conflict, InvalidInput

CHUNK = 2000  # instances of one transaction: some 1 MB in memory
MOST_AT_ONCE = 1_000_000
MOST_BYTES = 256 * 1024 * 1024  # of the overrides of all instances that are made at once: each stores its own
ABANDONED_AFTER = timedelta(minutes=15)  # a million takes some minutes
AWAITING = "AwaitingBatchSubmission"


def create_instances(
    database: Database,
    job: ObjectId,
    number: int,
    body: str = "",
    first: int | None = None,
    request: CreationRequest | None = None,
) -> range:
    """Add ``number`` instances with the overrides ``body`` (JSON text) to ``job`` and return their numbers.

    They continue where the job left off, without gaps or duplicates also under concurrent requests. ``first``, if
    given, must be the next number (Conflict otherwise, and for an archived job). Raises InvalidInput
    for a number out of bounds. A ``request`` that is repeated adds nothing and returns the same numbers.
    """
    if body:
        check_overrides(database, job, body)

    def create(session: ClientSession) -> Document:
        numbers = allot(database, job, number, body, first, session)
        return {"first": numbers.start, "end": numbers.stop}

    try:
        made = create_once(database, request, create)
    except Conflict:
        complete_creations(database, job)  # who repeats a request that a crash broke off finds them all
        raise
    complete_creations(database, job)
    return range(made["first"], made["end"])


def complete_creations(database: Database, job: ObjectId) -> None:
    """Store all instances of ``job`` whose numbers are given away, also those that a crash left out."""
    while database.transaction(lambda session: _fill_chunk(database, job, session)):
        pass


def complete_abandoned(database: Database) -> None:
    """Store what requests left out that died long ago, and that nobody repeats."""
    abandoned = {"creations.since": {"$lte": clock.now() - ABANDONED_AFTER}, "removing": {"$ne": True}}
    for job in list(database.jobs.find(abandoned, {"_id": 1})):
        complete_creations(database, job["_id"])


def allot(
    database: Database, job: ObjectId, number: int, body: str, first: int | None, session: ClientSession
) -> range:
    """Give away ``number`` instance numbers of ``job`` and return them; ``complete_creations`` stores the instances.

    Raises what ``create_instances`` does.
    """
    if not 0 <= number <= MOST_AT_ONCE:
        raise InvalidInput(f"n_instances is {number}: expected 0 to {MOST_AT_ONCE}")
    if (size := number * len(body.encode())) > MOST_BYTES:
        raise InvalidInput(
            f"override_dict: {number} instances with it take {size} bytes, at most {MOST_BYTES} at once: "
            "make fewer, or put what they have in common in the job's XML"
        )
    if not number:
        return range(0)
    # A pipeline, so that the note can say which numbers this very update gave away.
    guard: Document = {"_id": job, "archived": {"$ne": True}, "removing": {"$ne": True}}
    guard |= {} if first is None else {"allotted": first - 1}
    note = {
        "next": {"$add": ["$allotted", 1]},
        "last": {"$add": ["$allotted", number]},
        "body": {"$literal": body},
        "since": clock.now(),
    }
    changed = database.jobs.find_one_and_update(
        guard,
        [
            {
                "$set": {
                    "creations": {"$concatArrays": ["$creations", [note]]},
                    "allotted": {"$add": ["$allotted", number]},
                }
            }
        ],
        projection={"allotted": 1, "slug": 1},
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    if changed is None:
        jobs.check_open(database, job, session)
        raise Conflict(f"instance {first} is not the next one of job {job}")
    numbers = range(changed["allotted"] - number + 1, changed["allotted"] + 1)
    after = {"instances": f"{numbers[0]}-{numbers[-1]}", "overrides": body}
    audit.note(database, "instances.add", f"job/{changed['slug']}", after=after, session=session)
    return numbers


def _fill_chunk(database: Database, job_id: ObjectId, session: ClientSession) -> bool:
    job = database.jobs.find_one({"_id": job_id}, session=session)
    if job is None or not job["creations"] or job.get("removing"):
        return False
    note = job["creations"][0]
    last = min(note["next"] + CHUNK - 1, note["last"])
    # Every filler writes this first: of two at the same chunk, one conflicts and looks again.
    done = last == note["last"]
    progress = {"$pop": {"creations": -1}} if done else {"$set": {"creations.0.next": last + 1}}
    database.jobs.update_one({"_id": job_id}, progress, session=session)
    numbers = range(note["next"], last + 1)
    waiting = _waiting_for(database, job["dependencies"], numbers, session)
    database.instances.insert_many(_documents(job, numbers, note["body"], waiting), ordered=False, session=session)
    counts.change(database, job_id, {MajorStatus.NEW: len(numbers)}, session)
    return True


def _documents(job: Document, numbers: range, body: str, waiting: dict[int, list[ObjectId]]) -> list[Document]:
    time = clock.now()
    common: Document = {
        "_cls": "JobInstance",
        "job": job["_id"],
        "site": job["execution_site"],
        "priority": job["priority"],
        "status": str(MajorStatus.NEW),
        "minor_status": AWAITING,
        "created_at": time,
        "last_update": time,
        "body": body,
        "attempt": 0,
        "handed_out": False,
        "claimable": not job.get("paused"),
    }
    common |= {"paused": True} if job.get("paused") else {}
    documents = [{"_id": ObjectId(), **common, "instanceId": number} for number in numbers]
    for document in documents if waiting else ():
        if parents := waiting[document["instanceId"]]:
            document.update(claimable=False, waiting_for=parents)
    return documents


def _waiting_for(
    database: Database, parents: list[ObjectId], numbers: range, session: ClientSession
) -> dict[int, list[ObjectId]]:
    """Return, for each number, the parents whose instance of that number is not Done yet."""
    if not parents:
        return {}
    waiting: dict[int, list[ObjectId]] = {number: [] for number in numbers}
    for parent in parents:
        # A parent's instance that becomes Done meanwhile would not see these children, nor they it.
        counts.lock(database, parent, session)
        query = {
            "job": parent,
            "status": str(MajorStatus.DONE),
            "instanceId": {"$gte": numbers[0], "$lte": numbers[-1]},
        }
        done = {found["instanceId"] for found in database.instances.find(query, {"instanceId": 1}, session=session)}
        for number in numbers:
            if number not in done:
                waiting[number].append(parent)
    return waiting
