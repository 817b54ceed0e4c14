"""A job: its definition, its relatives, its instances, why they fail, and what can be done about it."""

from typing import Any

from flask import Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirection

from DmpWorkflow.core.database import (
    distributions,
    failing,
    instance_search,
    job_changes,
    jobs,
    listing,
    progress,
    relatives,
    resolution,
)
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.creation import create_instances
from DmpWorkflow.core.database.job_changes import JobChanges
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.job_definition import JobDefinition
from DmpWorkflow.frontend.access import Right, check_owner, database, principal, requires, sees
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.pages import forms
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.highlight import language_of
from DmpWorkflow.frontend.pages.refresh import shares_refreshes
from DmpWorkflow.frontend.parameters import assignments, parse
from DmpWorkflow.utils.errors import InvalidInput

INSTANCES_ON_A_PAGE = 50
FILTERS = ("status", "minor_status", "host", "n_min", "n_max", "text")
GROUPED_BY = {"minor_status": "Reason", "hostname": "Host", "last_line": "Last line of the log"}


@blueprint.get("/jobs/<slug>")
@requires(Right.READ)
@shares_refreshes
def job(slug: str) -> str:
    """Show a job with the instances that match."""
    given = parse(schemas.InstanceQuery)
    found = seen(slug)
    rows, after = instance_search.search(
        database(), found["_id"], given.chosen(), given.sort, given.descending, INSTANCES_ON_A_PAGE, given.after
    )
    parents, children = relatives.of_job(database(), found["_id"])
    definition, problem = _definition(found)
    return render_template(
        "job.html",
        given=given,
        filters_given=_filter_of(request.args),
        job=listing.job_summary(database(), found),
        progress=progress.of_jobs(database(), [found["_id"]])[found["_id"]],
        efficiency=distributions.of_job(database(), found["_id"])["efficiency"],
        parents=parents,
        children=children,
        definition=definition,
        problem=problem,
        language=language_of(definition.executable),
        instances=rows,
        after=after,
    )


@blueprint.get("/jobs/<slug>/failures")
@requires(Right.READ)
def job_failures(slug: str) -> str:
    """Show what a job's failures have in common; a part of its page."""
    found = seen(slug)
    groups = {word: failing.groups(database(), found["_id"], by) for by, word in GROUPED_BY.items()}
    return render_template("job_failures.html", slug=slug, groups=groups)


@blueprint.get("/jobs/<slug>/job.xml")
@requires(Right.READ)
def job_xml(slug: str) -> Response:
    """Return a job's definition as a file."""
    reply = Response(seen(slug)["body"], mimetype="application/xml")
    reply.headers["Content-Disposition"] = f'attachment; filename="{slug}.xml"'
    return reply


@blueprint.post("/jobs/<slug>/instances")
@requires(Right.CHANGE)
def add_instances(slug: str) -> Redirection:
    """Add instances."""
    job = changeable(slug)
    given = parse(forms.MoreInstances)
    made = create_instances(database(), job["_id"], given.number, assignments(given.variables).to_json())
    flash(f"Added instances {made[0]} to {made[-1]}.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/rollback")
@requires(Right.CHANGE)
def roll_back_instances(slug: str) -> Redirection:
    """Roll back all instances that match, or those named."""
    found = changeable(slug)
    given = parse(forms.Chosen)
    overrides = assignments(given.variables).to_json() if given.variables.strip() else None
    number = roll_back(database(), found["_id"], _numbers(found, given), overrides)
    flash(f"Rolled back {number} instances: they run again.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/kill")
@requires(Right.CHANGE)
def kill_instances(slug: str) -> Redirection:
    """End all instances that match, or those named."""
    found = changeable(slug)
    given = parse(forms.Chosen)
    ended, ordered = kill(database(), found["_id"], _numbers(found, given))
    flash(f"Ended {ended} waiting instances; {ordered} end with the next cycle of their agents.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/change")
@requires(Right.CHANGE)
def change_job(slug: str) -> Redirection:
    """Set priority, tags and retries."""
    found = changeable(slug)
    given = parse(forms.JobForm)
    tags = given.tags.replace(",", " ").split()
    words = given.retry_on.replace(",", " ").split()
    changes = JobChanges(priority=given.priority, tags=tags, retries=given.retries, retry_on=words)
    job_changes.change(database(), found, changes)
    flash("Saved.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/pause")
@requires(Right.CHANGE)
def pause_job(slug: str) -> Redirection:
    """Hand out nothing more of a job, or let it go on."""
    found = changeable(slug)
    paused = parse(forms.PauseForm).paused
    job_changes.change(database(), found, JobChanges(paused=paused, by=principal().name))
    flash("Paused: nothing more of it is handed out." if paused else "It goes on.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/archive")
@requires(Right.CHANGE)
def archive_job(slug: str) -> Redirection:
    """Put a job that is over aside, or bring it back."""
    found = changeable(slug)
    archived = parse(forms.ArchiveForm).archived
    job_changes.change(database(), found, JobChanges(archived=archived))
    flash("Archived: the list of jobs shows it on demand only." if archived else "Back in the list of jobs.")
    return _back(slug)


@blueprint.post("/jobs/<slug>/remove")
@requires(Right.CHANGE)
def remove_job(slug: str) -> Redirection:
    """Remove a job with all that is known of it."""
    found = changeable(slug)
    if parse(forms.Confirmation).confirm != found["title"]:
        raise InvalidInput(f"to remove it, type the job's name: {found['title']}")
    job_changes.remove(database(), found)
    flash(f"Removed job {found['title']}.")
    return redirect(url_for("pages.job_list"), 303)


def seen(slug: str) -> Document:
    """Return a job that the reader may see."""
    found = jobs.by_slug(database(), slug)
    sees(found)
    return found


def changeable(slug: str) -> Document:
    """Return a job that the one who asks may change."""
    found = seen(slug)
    check_owner(found)
    return found


def _definition(job: Document) -> tuple[JobDefinition, str]:
    """Return a job's definition with its variables resolved, and what is wrong with it: old data may be anything."""
    try:
        return resolution.Resolver(database(), [job["_id"]]).resolve(job["_id"]).definition, ""
    except InvalidInput as error:
        return JobDefinition(executable="", script=""), str(error)


def _numbers(job: Document, given: forms.Chosen) -> list[int]:
    """Return the numbers of the instances that are meant."""
    if given.which == "numbers":
        return given.numbers
    return instance_search.numbers(database(), job["_id"], given.chosen())


def _filter_of(values: Any) -> dict[str, str]:
    return {name: values[name] for name in FILTERS if values.get(name)}


def _back(slug: str) -> Redirection:
    """Return to the page with the filter that was chosen."""
    values: dict[str, Any] = {"slug": slug, **_filter_of(request.form)}
    return redirect(url_for("pages.job", **values), 303)
