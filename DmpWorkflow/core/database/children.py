"""Parents first: instance N of a job waits until instance N of each of its parents is Done."""

from collections.abc import Sequence

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus


def release(database: Database, parent: ObjectId, done: Sequence[int], session: ClientSession) -> None:
    """Let the children's instances go that waited for these Done instances of ``parent`` only."""
    waiting = _of_children(database, parent, done, session)
    if waiting is None:
        return
    remaining = {"$setDifference": ["$waiting_for", [parent]]}
    ready = {"$and": [{"$eq": ["$waiting_for", []]}, {"$not": ["$claim"]}]}
    database.instances.update_many(
        waiting | {"waiting_for": parent},
        [{"$set": {"waiting_for": remaining}}, {"$set": {"claimable": ready}}],
        session=session,
    )


def hold_back(database: Database, parent: ObjectId, numbers: Sequence[int], session: ClientSession) -> None:
    """Make the children's instances wait again, if nobody has claimed them: their parent was rolled back."""
    waiting = _of_children(database, parent, numbers, session)
    if waiting is None:
        return
    database.instances.update_many(
        waiting | {"claim": {"$exists": False}},
        {"$addToSet": {"waiting_for": parent}, "$set": {"claimable": False}},
        session=session,
    )


def _of_children(
    database: Database, parent: ObjectId, numbers: Sequence[int], session: ClientSession
) -> Document | None:
    jobs = [job["_id"] for job in database.jobs.find({"dependencies": parent}, {"_id": 1}, session=session)]
    if not jobs:
        return None
    return {"job": {"$in": jobs}, "instanceId": {"$in": list(numbers)}, "status": str(MajorStatus.NEW)}
