"""An instance: its attempts, its life, what it used, what it saw and what it said."""

import re
from collections.abc import Iterator

from flask import Response, flash, redirect, render_template, url_for
from markupsafe import Markup, escape
from werkzeug.wrappers import Response as Redirection

from DmpWorkflow.core.database import clock, listing, resolution
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.lifecycle import FINAL
from DmpWorkflow.frontend.access import Right, database, requires
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.pages import forms
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.job import changeable, seen
from DmpWorkflow.frontend.pages.refresh import shares_refreshes
from DmpWorkflow.frontend.pages.timeline import stays
from DmpWorkflow.frontend.parameters import assignments, parse
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.text import printable


@blueprint.get("/jobs/<slug>/<int:number>")
@requires(Right.READ)
@shares_refreshes
def instance(slug: str, number: int) -> str:
    """Show an instance."""
    given = parse(forms.LogSearch)
    job = seen(slug)
    found = _found(job, number)
    resolved, problem = _resolved(job, number, found["overrides"])
    lines, hits = _marked(found["log"], given.find)
    return render_template(
        "instance.html",
        given=given,
        job=job,
        instance=found,
        over=found["status"] in FINAL,
        resolved=resolved,
        problem=problem,
        timelines=[stays(found["status_history"], clock.now())]
        + [stays(one["status_history"], clock.now()) for one in reversed(found["attempts"])],
        log=lines,
        hits=hits,
    )


@blueprint.get("/jobs/<slug>/<int:number>/log")
@requires(Right.READ)
def instance_log(slug: str, number: int) -> Response:
    """Return the end of an instance's log as a file."""
    reply = Response(_found(seen(slug), number)["log"], mimetype="text/plain")
    reply.headers["Content-Disposition"] = f'attachment; filename="{slug}-{number}.log"'
    return reply


@blueprint.post("/jobs/<slug>/<int:number>/rollback")
@requires(Right.CHANGE)
def roll_back_instance(slug: str, number: int) -> Redirection:
    """Run an instance again, with other variables if some are given."""
    job = changeable(slug)
    given = parse(forms.Variables)
    _found(job, number)
    overrides = assignments(given.variables).to_json() if given.variables.strip() else None
    roll_back(database(), job["_id"], [number], overrides)
    flash(f"Rolled back instance {number}: it runs again.")
    return redirect(url_for("pages.instance", slug=slug, number=number), 303)


@blueprint.post("/jobs/<slug>/<int:number>/kill")
@requires(Right.CHANGE)
def kill_instance(slug: str, number: int) -> Redirection:
    """End an instance."""
    job = changeable(slug)
    _found(job, number)
    ended, ordered = kill(database(), job["_id"], [number])
    told = "It has ended." if ended else "It ends with the next cycle of its agent." if ordered else "It was over."
    flash(told)
    return redirect(url_for("pages.instance", slug=slug, number=number), 303)


def _found(job: Document, number: int) -> Document:
    return listing.instance_detail(database(), job["_id"], min(number, schemas.INT64))


def _resolved(job: Document, number: int, overrides: str) -> tuple[Document, str]:
    """Return what the instance sees, and what is wrong with its definition: old data may be anything."""
    try:
        resolved = resolution.Resolver(database(), [job["_id"]]).resolve(job["_id"], overrides)
        return resolved.as_payload_sees(number, stored=True), ""
    except InvalidInput as error:
        return {"variables": [], "automatic": [], "input_files": [], "output_files": []}, str(error)


def _marked(log: str, wanted: str) -> tuple[Markup, int]:
    """Return the log with what was searched for marked, and how often it was found."""
    if not wanted:
        return escape(printable(log)), 0
    parts = list(_parts(printable(log), wanted))
    return Markup("").join(parts), sum(part.startswith(Markup("<mark>")) for part in parts)


def _parts(text: str, wanted: str) -> Iterator[Markup]:
    place = 0
    for match in re.finditer(re.escape(wanted), text, re.IGNORECASE):
        yield escape(text[place : match.start()])
        yield Markup("<mark>{}</mark>").format(match[0])
        place = match.end()
    yield escape(text[place:])
