"""The parents and children of a job."""

from bson import ObjectId

from DmpWorkflow.core.database import listing
from DmpWorkflow.core.database.connection import Database, Document

MOST = 50  # that are shown on each side


def of_job(database: Database, job: ObjectId) -> tuple[list[Document], list[Document]]:
    """Return parents and children as lists show jobs, with their counts, the oldest first."""
    found = database.jobs.find_one({"_id": job}, {"dependencies": 1}) or {"dependencies": []}
    parents = database.jobs.find({"_id": {"$in": found["dependencies"]}}, listing.JOB_FIELDS).limit(MOST)
    children = database.jobs.find({"dependencies": job}, listing.JOB_FIELDS, sort=[("_id", 1)], limit=MOST)
    return listing.with_counts(database, list(parents)), listing.with_counts(database, list(children))
