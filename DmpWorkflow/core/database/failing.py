"""What the failures of a job have in common."""

from bson import ObjectId

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus

MOST_LOOKED_AT = 5000  # of the failures, those with the highest numbers: enough to see what is wrong, however many
MOST_GROUPS = 20
BAD = [str(MajorStatus.FAILED), str(MajorStatus.TERMINATED)]


def groups(database: Database, job: ObjectId, by: str) -> list[Document]:
    """Return value, number and an example (an instance's number) for each value of the field ``by``, most first."""
    found = database.instances.aggregate(
        [
            {"$match": {"job": job, "status": {"$in": BAD}}},
            {"$sort": {"instanceId": -1}},
            {"$limit": MOST_LOOKED_AT},
            {"$group": {"_id": f"${by}", "number": {"$sum": 1}, "example": {"$max": "$instanceId"}}},
            {"$sort": {"number": -1, "_id": 1}},
            {"$limit": MOST_GROUPS},
        ]
    )
    return [{"value": one["_id"] or "", "number": one["number"], "example": one["example"]} for one in found]
