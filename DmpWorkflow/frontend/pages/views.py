"""The pages: the list of jobs, a job with its instances, an instance."""

from typing import Any

from flask import Blueprint, Response, current_app, render_template, request

import DmpWorkflow
from DmpWorkflow.core.database import jobs, listing
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.frontend.access import Right, database, own_site, requires, sees
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.pages.charts import curve
from DmpWorkflow.frontend.parameters import parse

blueprint = Blueprint(
    "pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)

JOBS_ON_A_PAGE = 50
INSTANCES_ON_A_PAGE = 100
POLICY = "; ".join(
    [
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
# Status signs differ in shape, so that they can be told apart without colour.
SIGNS = {
    MajorStatus.NEW: "○",
    MajorStatus.SUBMITTED: "◔",
    MajorStatus.RUNNING: "▶",
    MajorStatus.SUSPENDED: "‖",
    MajorStatus.DONE: "✔",
    MajorStatus.FAILED: "✘",
    MajorStatus.TERMINATED: "■",
    MajorStatus.UNKNOWN: "?",
}


@blueprint.get("/")
@requires(Right.READ)
def job_list() -> str:
    """Show jobs, the youngest first."""
    given = parse(schemas.JobQuery)
    site = own_site() or given.site
    found, cursor = listing.jobs_page(database(), JOBS_ON_A_PAGE, given.before, given.title, given.type, site)
    return render_template("jobs.html", jobs=found, cursor=cursor, given=given)


@blueprint.get("/jobs/<slug>")
@requires(Right.READ)
def job(slug: str) -> str:
    """Show a job with its instances."""
    given = parse(schemas.InstanceQuery)
    found = jobs.by_slug(database(), slug)
    sees(found)
    rows, after = listing.instances_page(database(), found["_id"], INSTANCES_ON_A_PAGE, given.after, given.status)
    shown = listing.job_summary(database(), found)
    return render_template("job.html", job=shown, instances=rows, after=after, given=given)


@blueprint.get("/jobs/<slug>/<int:number>")
@requires(Right.READ)
def instance(slug: str, number: int) -> str:
    """Show an instance with its history, resources and log."""
    found = jobs.by_slug(database(), slug)
    sees(found)
    shown = listing.instance_detail(database(), found["_id"], min(number, schemas.INT64))
    curves = [
        curve("CPU time", "s", shown["cpu"], shown["cpu_max"]),
        curve("Memory", "MB", shown["memory"], shown["mem_max"]),
    ]
    return render_template(
        "instance.html", job=found, instance=shown, curves=[drawn for drawn in curves if drawn is not None]
    )


@blueprint.after_app_request
def _protect(reply: Response) -> Response:
    reply.headers.setdefault("Content-Security-Policy", POLICY)
    reply.headers.setdefault("X-Content-Type-Options", "nosniff")
    reply.headers.setdefault("Referrer-Policy", "same-origin")
    reply.headers.setdefault("Cache-Control", "no-store")
    return reply


@blueprint.app_context_processor
def _common() -> dict[str, Any]:
    return {
        "signs": {str(status): sign for status, sign in SIGNS.items()},
        "statuses": [str(status) for status in MajorStatus],
        "version": DmpWorkflow.__version__,
        "open_to_all": current_app.config["DAMPE_SETTINGS"].server.auth == "off",
    }


@blueprint.app_template_filter("printable")
def printable(text: object) -> str:
    """Return a text with its control characters shown, line ends and tabs kept."""
    return "".join(letter if letter in "\n\t" or letter.isprintable() else _shown(letter) for letter in str(text))


def _shown(letter: str) -> str:
    return chr(0x2400 + ord(letter)) if ord(letter) < 32 else "\N{REPLACEMENT CHARACTER}"


@blueprint.app_template_filter("moment")
def moment(text: str) -> str:
    """Return an ISO 8601 time as people read it."""
    return text[:19].replace("T", " ")


def is_page() -> bool:
    """Say whether a person asked for this: a page, and not the API."""
    return request.path == "/" or request.path.startswith("/jobs/")


def error_page(status: int, text: str) -> str:
    """Return the page that tells of an error."""
    return render_template("error.html", status=status, text=text)
