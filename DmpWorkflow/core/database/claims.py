"""Claims: instances handed to one agent for a limited time, however many ask at once."""

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import attempt_numbers, children, clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Conflict

ROUNDS = 10  # further tries to win candidates where others took the first ones away
SPREAD = 4  # how much wider those who lost look, so that they do not all meet again
CLAIMED_FIELDS = {"job": 1, "instanceId": 1, "attempt": 1, "body": 1, "status": 1, "waits_until": 1}
KEEP_RECORD = timedelta(days=1)
ORDER = [("priority", DESCENDING), ("job", ASCENDING), ("instanceId", ASCENDING)]


@dataclass(frozen=True)
class ClaimRequest:
    """What an agent asks for; ``request_id`` is its own word for this request, so that it can be repeated."""

    site: str
    agent: str
    request_id: str
    limit: int
    lease: timedelta


def claim(database: Database, request: ClaimRequest) -> list[Document]:
    """Hand at most ``request.limit`` claimable instances of the site to the agent and return them.

    Repeating a request returns the same set, less what was lost since. The same request id from another site
    or agent raises Conflict.
    """
    end_waits(database)
    candidates = _candidates(database, request.site, request.limit)
    record, is_new = _record(database, request, candidates)
    if record["expires"] > clock.now():
        _take(database, request, record["expires"], record["candidates"])
    tried = list(record["candidates"])
    claimed = _claimed(database, request, tried)
    rounds = ROUNDS if is_new else 0  # who repeats a request gets no others than the first time
    while rounds and candidates and len(claimed) < request.limit:
        rounds -= 1
        candidates = _candidates(database, request.site, request.limit - len(claimed), SPREAD)
        note = {"$push": {"candidates": {"$each": candidates}}}
        database.claims.update_one({"_id": request.request_id}, note)
        _take(database, request, record["expires"], candidates)
        tried += candidates
        claimed = _claimed(database, request, tried)  # all, since some may be lost meanwhile
    return claimed


def count_over(database: Database) -> int:
    """Return how many instances are still to be made claimable by ``end_waits``."""
    return database.instances.count_documents(_over())


def _over() -> Document:
    return {"waits_until": {"$lte": clock.now()}, "status": str(MajorStatus.NEW)}


def end_waits(database: Database) -> int:
    """Make instances claimable again whose lease or pause before a retry is over; return how many.

    Of one that was claimed and never reported as submitted the attempt stays current until the next claim, so that a
    late "Submitted" is still good.
    """
    back: list[Document] = [{"$unset": ["claim", "waits_until"]}, {"$set": {"claimable": children.IS_READY}}]
    return database.instances.update_many(_over(), back).modified_count


def _candidates(database: Database, site: str, limit: int, spread: int = 1) -> list[Document]:
    """Return ids of claimable instances, those with the same number of attempts together.

    That number is part of the claim: a repeated request must not take what was rolled back meanwhile.
    """
    if not limit:
        return []
    query = {"site": site, "claimable": True}
    found = list(
        database.instances.find(query, {"attempt": 1}, sort=ORDER, limit=limit * spread, batch_size=limit * spread)
    )
    groups: defaultdict[int, list[ObjectId]] = defaultdict(list)
    for instance in found if len(found) <= limit else random.sample(found, limit):
        groups[instance["attempt"]].append(instance["_id"])
    return [{"attempt": attempt, "ids": ids} for attempt, ids in groups.items()]


def _record(database: Database, request: ClaimRequest, candidates: list[Document]) -> tuple[Document, bool]:
    """Write down what this request is about to take, before it takes any; return that and whether it is new."""
    expires = clock.now() + request.lease
    record: Document = {
        "_id": request.request_id,
        "site": request.site,
        "agent": request.agent,
        "candidates": candidates,
        "expires": expires,
        "forget_at": expires + KEEP_RECORD,
    }
    try:
        database.claims.insert_one(record)
    except DuplicateKeyError:
        return _repeated(database, request), False
    return record, True


def _repeated(database: Database, request: ClaimRequest) -> Document:
    record = database.claims.find_one({"_id": request.request_id}) or {}
    if (record.get("site"), record.get("agent")) != (request.site, request.agent):
        raise Conflict(f"request_id {request.request_id!r} was used by another agent: make one of your own")
    return record


def _take(database: Database, request: ClaimRequest, expires: datetime, candidates: list[Document]) -> None:
    """Take those candidates that nobody has taken: one compare-and-set over the batch."""
    floor = attempt_numbers.floor(database) if candidates else 0
    low = [group for group in candidates if group["attempt"] < floor]
    if low:  # not claimed since the database was restored
        _take_groups(database, request, expires, low, {"$set": {"attempt": floor + 1}})
    if len(low) < len(candidates):
        others = [group for group in candidates if group["attempt"] >= floor]
        _take_groups(database, request, expires, others, {"$inc": {"attempt": 1}})


def _take_groups(
    database: Database, request: ClaimRequest, expires: datetime, candidates: list[Document], counted: Document
) -> None:
    groups = [{"_id": {"$in": group["ids"]}, "attempt": group["attempt"]} for group in candidates]
    taken = {
        "claimable": False,
        "handed_out": True,
        "claim": {"request": request.request_id, "agent": request.agent},
        "waits_until": expires,
        "last_update": clock.now(),
    }
    forgotten = dict.fromkeys(("sequence", "runner", "lost", "batchId", "hostname", "quiet", "stalled_since"), "")
    database.instances.update_many(
        {"$or": groups, "claimable": True},
        counted | {"$set": taken | counted.get("$set", {}), "$unset": forgotten},
    )


def _claimed(database: Database, request: ClaimRequest, candidates: list[Document]) -> list[Document]:
    """Return those candidates that this request has taken."""
    ids = [instance for group in candidates for instance in group["ids"]]
    taken = {"_id": {"$in": ids}, "claim.request": request.request_id}
    return list(database.instances.find(taken, CLAIMED_FIELDS, sort=ORDER, batch_size=max(1, len(ids))))
