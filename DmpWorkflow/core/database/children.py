"""Parents first: instance N of a job waits until instance N of each of its parents is Done."""

from collections.abc import Sequence

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus

# Whether an instance can be claimed, as an expression for update pipelines.
IS_READY: Document = {
    "$and": [
        {"$eq": ["$status", str(MajorStatus.NEW)]},
        {"$eq": [{"$ifNull": ["$waiting_for", []]}, []]},
        {"$not": ["$waits_until"]},
        {"$ne": ["$paused", True]},
    ]
}


def release(database: Database, parent: ObjectId, done: Sequence[int], session: ClientSession) -> None:
    """Let the children's instances go that waited for these Done instances of ``parent`` only."""
    remaining = {"$setDifference": ["$waiting_for", [parent]]}
    _update(database, parent, {"instanceId": {"$in": list(done)}, "waiting_for": parent}, remaining, session)


def hold_back(database: Database, parent: ObjectId, numbers: Sequence[int], session: ClientSession) -> None:
    """Make the children's instances wait again, since their parent was rolled back.

    What was claimed or has run already goes on; it waits if it is rolled back itself.
    """
    more = {"$setUnion": [{"$ifNull": ["$waiting_for", []]}, [parent]]}
    _update(database, parent, {"instanceId": {"$in": list(numbers)}}, more, session)


def _update(
    database: Database, parent: ObjectId, chosen: Document, waiting_for: Document, session: ClientSession
) -> None:
    open_children = {"dependencies": parent, "removing": {"$ne": True}}
    jobs = [job["_id"] for job in database.jobs.find(open_children, {"_id": 1}, session=session)]
    if jobs:
        database.instances.update_many(
            chosen | {"job": {"$in": jobs}},
            [{"$set": {"waiting_for": waiting_for}}, {"$set": {"claimable": IS_READY}}],
            session=session,
        )
