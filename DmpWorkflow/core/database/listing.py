"""Jobs and instances as lists and pages show them; read by key, never by skipping."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import counts, credentials, users
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput, NotFound

ROW_FIELDS = {
    "instanceId": 1, "status": 1, "minor_status": 1, "attempt": 1, "hostname": 1, "batchId": 1, "last_update": 1,
    "cpu_peak": 1, "memory_peak": 1, "last_line": 1, "stalled_since": 1, "waits_until": 1, "claim.agent": 1,
}  # fmt: skip
JOB_FIELDS = {"body": 0, "creations": 0}
MOST_FOUND = 1_000_000


def job_summary(database: Database, job: Document) -> Document:
    """Return one job as lists show it, with its XML and its parents' slugs."""
    parents = database.jobs.find({"_id": {"$in": job["dependencies"]}}, {"slug": 1})
    row = with_counts(database, [job])[0]
    slugs = [parent["slug"] for parent in parents]
    return row | {"body": job["body"], "parents": slugs, "allotted": job["allotted"]}


def with_counts(database: Database, jobs: Sequence[Document]) -> list[Document]:
    """Return jobs (with JOB_FIELDS) as rows of a list, with the number of instances in each status."""
    totals = counts.of_jobs(database, [job["_id"] for job in jobs])
    return [
        {
            "id": str(job["_id"]),
            "slug": job["slug"],
            "title": job["title"],
            "type": job["type"],
            "site": job["execution_site"],
            "release": job["release"],
            "priority": job["priority"],
            "created_at": iso(job["created_at"]),
            "counts": {str(status): count for status, count in totals[job["_id"]].items()},
            "owner": job.get("owner", ""),
            "tags": job.get("tags", []),
            "archived": job.get("archived", False),
            "parent_count": len(job["dependencies"]),
            "retries": job.get("retries", 0),
            "retry_on": job.get("retry_on", []),
            "lost_after": job.get("lost_after"),
            "paused": job.get("paused", ""),
        }
        for job in jobs
    ]


def instance_row(instance: Document) -> Document:
    """Return an instance (with ROW_FIELDS) as a row of a list."""
    return {
        "instance_id": instance["instanceId"],
        "status": instance["status"],
        "minor_status": instance["minor_status"],
        "attempt": instance["attempt"],
        "hostname": instance.get("hostname"),
        "batch_id": instance.get("batchId"),
        "last_update": iso(instance["last_update"]),
        "cpu_peak": instance.get("cpu_peak"),
        "memory_peak": instance.get("memory_peak"),
        "last_line": instance.get("last_line"),
        "stalled_since": _iso(instance.get("stalled_since")),
        "not_before": None if instance.get("claim") else _iso(instance.get("waits_until")),
    }


def _iso(time: datetime | None) -> str | None:
    return iso(time) if time else None


def instance_detail(database: Database, job: ObjectId, number: int) -> Document:
    """Return all that is known of one instance; raises NotFound."""
    found = database.instances.find_one({"job": job, "instanceId": number})
    if found is None:
        raise NotFound(f"there is no instance {number} of this job")
    plain = {name: found.get(name) for name in ("cpu_max", "mem_max", "Nevents")}
    return instance_row(found) | plain | {
        "created_at": iso(found["created_at"]),
        "overrides": found.get("body", ""),
        "status_history": [_timed(entry, "update") for entry in found.get("status_history", [])],
        "cpu": [_timed(sample, "time") for sample in found.get("cpu", [])],
        "memory": [_timed(sample, "time") for sample in found.get("memory", [])],
        "attempts": [_earlier(attempt) for attempt in found.get("attempts", [])],
        "log": found.get("log", ""),
    }  # fmt: skip


def _timed(entry: Document, name: str) -> Document:
    return entry | {name: iso(entry[name])}


def _earlier(attempt: Document) -> Document:
    history = [_timed(entry, "update") for entry in attempt.get("status_history", [])]
    return _timed(attempt, "ended") | {"status_history": history}


def find_instances(
    database: Database,
    title: str,
    job_type: str,
    status: str = "Any",
    instance: int | None = None,
    n_min: int | None = None,
    n_max: int | None = None,
    site: str = "",
) -> list[Document]:
    """Return jobId and instanceId of the instances that match, n_min < number <= n_max, the youngest first."""
    named = {"title": title, "type": job_type} | ({"execution_site": site} if site else {})
    jobs = [job["_id"] for job in database.jobs.find(named, {"_id": 1})]
    query = _chosen({"$in": jobs}, status, n_min, n_max, instance)
    found = database.instances.find(query, {"job": 1, "instanceId": 1, "_id": 0}, limit=MOST_FOUND)
    pairs = sorted(((item["job"], item["instanceId"]) for item in found), reverse=True)
    return [{"instanceId": number, "jobId": str(job)} for job, number in pairs]


def _chosen(job: Any, status: str, n_min: int | None, n_max: int | None, instance: int | None) -> Document:
    query: Document = {"job": job}
    if status != "Any":
        query["status"] = str(status_of(status))
    bounds = {"$gt": n_min, "$lte": n_max, "$eq": instance}
    if given := {operator: value for operator, value in bounds.items() if value is not None}:
        query["instanceId"] = given
    return query


def watched(database: Database, site: str) -> list[Document]:
    """Return the site's running instances with their limits, for a watchdog from the outside."""
    query = {"site": site, "active": True, "status": str(MajorStatus.RUNNING)}
    fields = {"job": 1, "instanceId": 1, "batchId": 1, "status": 1, "cpu_max": 1, "mem_max": 1}
    return [
        {
            "t_id": str(found["job"]),
            "inst_id": found["instanceId"],
            "batchId": found.get("batchId"),
            "major_status": found["status"],
            "max_cpu": found.get("cpu_max"),
            "max_mem": found.get("mem_max"),
        }
        for found in database.instances.find(query, fields)
    ]


def status_of(text: str) -> MajorStatus:
    """Return the status of that name; raises InvalidInput."""
    try:
        return MajorStatus(text)
    except ValueError:
        raise InvalidInput(f"status {text!r}: expected one of {', '.join(MajorStatus)}") from None


def tokens(database: Database) -> list[Document]:
    """Return every token, less its secret, by name."""
    rows = [(token, token.get("expires")) for token in credentials.all_tokens(database)]
    return [_account(token) | {"expires": _iso(expires)} for token, expires in rows]


def people(database: Database) -> list[Document]:
    """Return every user, less the password, by name."""
    return [_account(user) | {"disabled": user.get("disabled", False)} for user in users.all_users(database)]


def _account(stored: Document) -> Document:
    times = {field: _iso(stored[field]) for field in ("created_at", "last_used")}
    return {field: stored[field] for field in ("name", "role", "site")} | times
