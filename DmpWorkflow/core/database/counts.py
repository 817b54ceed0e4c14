"""How many instances are in which status: counters that change in the transaction of the instances themselves.

The counters of a job are spread over a few documents (slots), so that concurrent transactions seldom conflict. A
change may go to any slot, since only the sum has a meaning.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus

SLOTS = 8

Counts = dict[MajorStatus, int]


def create(database: Database, job: ObjectId, site: str, session: ClientSession) -> None:
    """Make the counters of a new job."""
    database.counts.insert_many(
        [{"_id": f"{job}:{slot}", "job": job, "site": site, "status": {}} for slot in range(SLOTS)],
        session=session,
    )


def change(database: Database, job: ObjectId, deltas: Mapping[MajorStatus, int], session: ClientSession) -> None:
    """Add ``deltas`` to the counters of ``job``; what is zero costs nothing."""
    increments = {f"status.{status}": delta for status, delta in deltas.items() if delta}
    if increments:
        slot = random.randrange(SLOTS)  # noqa: S311 - spreads load, guards nothing
        database.counts.update_one({"_id": f"{job}:{slot}"}, {"$inc": increments}, session=session)


def lock(database: Database, job: ObjectId, session: ClientSession) -> None:
    """Make this transaction conflict with every other one that changes the counters of ``job``."""
    database.counts.update_many({"job": job}, {"$inc": {"locks": 1}}, session=session)


def complete(database: Database, job: ObjectId, site: str, session: ClientSession) -> None:
    """Make those slots of ``job`` that are missing."""
    for slot in range(SLOTS):
        made = {"$setOnInsert": {"job": job, "site": site, "status": {}}}
        database.counts.update_one({"_id": f"{job}:{slot}"}, made, upsert=True, session=session)


def afresh(database: Database, job: ObjectId, session: ClientSession) -> Counts:
    """Return the counts of ``job`` from its instances themselves, in the time that this takes."""
    steps: list[Document] = [{"$match": {"job": job}}, {"$group": {"_id": "$status", "number": {"$sum": 1}}}]
    found = database.instances.aggregate(steps, session=session)
    return dict.fromkeys(MajorStatus, 0) | {MajorStatus(group["_id"]): group["number"] for group in found}


def differences(database: Database, job: ObjectId, session: ClientSession) -> Counts:
    """Return what the counters of ``job`` have too little (or, below zero, too much), where that is not nothing."""
    kept = of_jobs(database, [job], session)[job]
    fresh = afresh(database, job, session)
    return {status: fresh[status] - kept[status] for status in kept if fresh[status] != kept[status]}


def compare(database: Database, job: ObjectId, site: str, repair: bool, session: ClientSession) -> Counts:
    """Return the ``differences`` of ``job``; ``repair`` sets them right, while nobody changes the counters."""
    if repair:
        lock(database, job, session)
    wrong = differences(database, job, session)
    if repair and wrong:
        complete(database, job, site, session)
        change(database, job, wrong, session)
    return wrong


def of_jobs(
    database: Database, jobs: Iterable[ObjectId], session: ClientSession | None = None
) -> dict[ObjectId, Counts]:
    """Return the counts of each job, with every status in each; a constant number of documents is read per job."""
    totals = {job: dict.fromkeys(MajorStatus, 0) for job in jobs}
    sums = {str(status): {"$sum": f"$status.{status}"} for status in MajorStatus}
    chosen = {"$match": {"job": {"$in": list(totals)}}}
    for found in database.counts.aggregate([chosen, {"$group": {"_id": "$job"} | sums}], session=session):
        totals[found["_id"]] = {status: found[status] for status in MajorStatus}
    return totals


def of_site(database: Database, site: str) -> Counts:
    """Return the counts over all jobs of ``site``."""
    total = dict.fromkeys(MajorStatus, 0)
    for slot in database.counts.find({"site": site}):
        for status, count in slot["status"].items():
            total[MajorStatus(status)] += count
    return total


def of_all_sites(database: Database) -> dict[str, Counts]:
    """Return the counts over all jobs of every site that has jobs."""
    sums: dict[str, Any] = {str(status): {"$sum": {"$ifNull": [f"$status.{status}", 0]}} for status in MajorStatus}
    found = database.counts.aggregate([{"$group": {"_id": "$site"} | sums}])
    return {group["_id"]: {status: group[str(status)] for status in MajorStatus} for group in found}
