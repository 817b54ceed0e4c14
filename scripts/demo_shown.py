"""Which of the demonstration data to look at: what the addresses of pages name."""

from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database.connection import Database

FEWEST = 300  # instances of the job that is shown
SITE = "BARI"  # it has a host that fails all it gets


@dataclass(frozen=True)
class Shown:
    """A job that is the same whatever the number of instances, its first one that failed, and the largest job."""

    database: Database
    job_id: ObjectId
    job: str
    number: int
    largest: str

    @property
    def words(self) -> dict[str, str | int]:
        """What stands in an address for {job}, {number}, {largest} and {site}."""
        return {"job": self.job, "number": self.number, "largest": self.largest, "site": SITE}


def what_to_show(database: Database) -> Shown:
    """Return what to show of demonstration data; some instances of the job have failed, and some run."""
    made: list[dict[str, Any]] = list(database.jobs.find({}, {"slug": 1, "allotted": 1}))
    largest = max(made, key=lambda job: int(job["allotted"]))
    for job in made:
        chosen = {"job": job["_id"], "status": "Failed"}
        failed = database.instances.find_one(chosen, {"instanceId": 1}, sort=[("instanceId", 1)])
        runs = database.instances.find_one({"job": job["_id"], "status": "Running"}, {"_id": 1})
        if job["allotted"] >= FEWEST and failed and runs:
            return Shown(database, job["_id"], job["slug"], failed["instanceId"], largest["slug"])
    raise AssertionError(f"no job has {FEWEST} instances, some failed and some running")
