"""Jobs and instances: made, listed, shown, rolled back."""

from typing import Any

from bson import ObjectId
from flask import Blueprint, Response, request

from DmpWorkflow.core.database import export, instance_search, job_changes, job_search, jobs, listing
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.creation import create_instances
from DmpWorkflow.core.database.job_changes import JobChanges
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.submission import Submission, check_xml, clone, submit_xml
from DmpWorkflow.frontend.access import (
    Right,
    check_owner,
    check_site,
    database,
    own_jobs_only,
    own_site,
    owner,
    principal,
    requires,
    sees,
)
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.exports import as_file
from DmpWorkflow.frontend.idempotency import creation_request
from DmpWorkflow.frontend.parameters import Malformed, json_object, overrides, parse, words
from DmpWorkflow.utils.errors import InvalidInput

blueprint = Blueprint("jobs", __name__)

NO_PARENT = ("", "None")


@blueprint.post("/job/")
@requires(Right.SUBMIT)
def create_job() -> dict[str, Any]:
    """Make the jobs of an XML file, with instances."""
    rows, warnings = submit_xml(database(), _submission(), words(), creation_request())
    return {"result": "ok", "jobID": rows[0]["jobID"], "jobs": rows, "warnings": warnings}


@blueprint.post("/job/check/")
@requires(Right.SUBMIT)
def check_job() -> dict[str, Any]:
    """Say what the jobs of an XML file would be, or all that is wrong with it; nothing is made."""
    checked = check_xml(database(), _submission(), words())
    return {
        "result": "ok",
        "valid": not checked.problems,
        "problems": [{"line": problem.line, "text": problem.text} for problem in checked.problems],
        "warnings": checked.warnings,
        "jobs": checked.previews,
    }


def _submission() -> Submission:
    given = parse(schemas.NewJob)
    file = request.files.get("file")
    if file is None:
        raise Malformed("file: the XML is missing")
    return Submission(
        xml=file.read(),
        title=given.taskname if given.taskname != "None" else "",
        type=given.t_type if given.t_type not in ("None", "NONE") else "",
        site=given.site if given.site != "None" else "",
        instances=given.n_instances,
        overrides=overrides(given.override_dict),
        parents=_parents(),
        replace=given.replace,
        priority=given.priority,
        owner=owner(),
        own_only=own_jobs_only(),
    )


def _parents() -> tuple[str, ...]:
    values = [part.strip() for value in request.form.getlist("depends") for part in value.split(",")]
    return tuple(value for value in values if value not in NO_PARENT)


@blueprint.post("/jobInstances/")
@requires(Right.CHANGE)
def add_instances() -> dict[str, Any]:
    """Add instances to a job."""
    given = parse(schemas.NewInstances)
    job = _owned(jobs.by_name(database(), given.taskname, given.tasktype, given.site))
    text = overrides(given.override_dict).to_json()
    numbers = create_instances(database(), job["_id"], given.n_instances, text, given.instanceId, creation_request())
    return {
        "result": "ok",
        "jobID": str(job["_id"]),
        "first": numbers[0] if numbers else None,
        "last": numbers[-1] if numbers else None,
    }


@blueprint.get("/job/")
@requires(Right.READ)
def list_jobs() -> dict[str, Any]:
    """List the jobs that match, the youngest first or in another order."""
    given = parse(schemas.JobQuery)
    if own_site():
        check_site(given.site or own_site())
    chosen = given.chosen(given.site or own_site())
    page = job_search.search(database(), chosen, given.sort, given.descending, given.limit, given.before)
    return {"result": "ok", "jobs": page.rows, "next": page.next, "matching": page.matching}


@blueprint.get("/job/<slug>/")
@requires(Right.READ)
def show_job(slug: str) -> dict[str, Any]:
    """Show one job with its XML."""
    return {"result": "ok", "job": listing.job_summary(database(), _seen(slug))}


@blueprint.patch("/job/<slug>/")
@requires(Right.CHANGE)
def change_job(slug: str) -> dict[str, Any]:
    """Change priority, tags, retries, or whether it is paused or archived."""
    job = _owned(jobs.by_slug(database(), slug))
    given = parse(schemas.JobChange, json_object())
    job_changes.change(database(), job, JobChanges(**given.model_dump(), by=principal().name))
    return {"result": "ok", "job": listing.job_summary(database(), jobs.by_slug(database(), slug))}


@blueprint.delete("/job/<slug>/")
@requires(Right.CHANGE)
def remove_job(slug: str) -> dict[str, Any]:
    """Remove a job with all its instances; its title confirms that it is meant."""
    job = _owned(jobs.by_slug(database(), slug))
    given = parse(schemas.Removal, json_object())
    if given.confirm != job["title"]:
        raise InvalidInput(f"confirm: {given.confirm[:40]!r} is not the title of this job: nothing was removed")
    return {"result": "ok", "removed": job_changes.remove(database(), job)}


@blueprint.post("/job/<slug>/clone/")
@requires(Right.SUBMIT)
def clone_job(slug: str) -> dict[str, Any]:
    """Make a job of another name from the XML and the parents of this one."""
    given = parse(schemas.NewClone, json_object())
    original = jobs.by_slug(database(), slug)
    rows, warnings = clone(database(), original, given.title, given.n_instances, owner(), words(), creation_request())
    return {"result": "ok", "jobID": rows[0]["jobID"], "jobs": rows, "warnings": warnings}


@blueprint.get("/job/<slug>/instances/")
@requires(Right.READ)
def list_instances(slug: str) -> dict[str, Any]:
    """List the instances of a job that match, in the order of their numbers or another one."""
    given = parse(schemas.InstanceQuery)
    rows, after = instance_search.search(
        database(), _seen(slug)["_id"], given.chosen(), given.sort, given.descending, given.limit, given.after
    )
    return {"result": "ok", "instances": rows, "next": after}


@blueprint.get("/job/<slug>/export/")
@requires(Right.READ)
def export_instances(slug: str) -> Response:
    """Return the instances of a job that match as a file, CSV or JSON."""
    given = parse(schemas.ExportQuery)
    job = _seen(slug)
    return as_file(
        f"{job['slug']}.{given.format}", tuple(export.COLUMNS), export.rows(database(), job, given.chosen())
    )


@blueprint.get("/job/<slug>/instances/<int:number>/")
@requires(Right.READ)
def show_instance(slug: str, number: int) -> dict[str, Any]:
    """Show all that is known of one instance."""
    number = min(number, schemas.INT64)
    return {"result": "ok", "instance": listing.instance_detail(database(), _seen(slug)["_id"], number)}


def _seen(slug: str) -> Document:
    job = jobs.by_slug(database(), slug)
    sees(job)
    return job


@blueprint.post("/rollback/")
@requires(Right.CHANGE)
def roll_back_instances() -> dict[str, Any]:
    """Roll instances of a job back: those named, or all that match."""
    given = parse(schemas.RollBack, json_object())
    job = _owned(_by_slug_or_id(given.job))
    numbers = given.instances
    if numbers is None:
        numbers = instance_search.numbers(database(), job["_id"], given.chosen("Failed"))
    text = None if given.override_dict is None else overrides(given.override_dict).to_json()
    return {"result": "ok", "rolled_back": roll_back(database(), job["_id"], numbers, text)}


@blueprint.post("/kill/")
@requires(Right.CHANGE)
def kill_instances() -> dict[str, Any]:
    """End instances of a job: those named, or all that match."""
    given = parse(schemas.Kill, json_object())
    job = _owned(_by_slug_or_id(given.job))
    numbers = given.instances
    if numbers is None:
        numbers = instance_search.numbers(database(), job["_id"], given.chosen())
    ended, ordered = kill(database(), job["_id"], numbers)
    return {"result": "ok", "ended": ended, "ordered": ordered}


def _owned(job: Document) -> Document:
    check_owner(job)
    return job


def _by_slug_or_id(word: str) -> Document:
    return jobs.by_id(database(), ObjectId(word)) if ObjectId.is_valid(word) else jobs.by_slug(database(), word)
