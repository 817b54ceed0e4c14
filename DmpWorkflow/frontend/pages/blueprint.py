"""The blueprint of all pages: its shield against other sites, and what every template knows."""

import hashlib
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, current_app, g, render_template, request, url_for
from flask_wtf.csrf import CSRFError, CSRFProtect

import DmpWorkflow
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.frontend.access import EVERYBODY, Right, may_change
from DmpWorkflow.frontend.pages.refresh import is_refresh
from DmpWorkflow.utils.errors import AccessDenied
from DmpWorkflow.utils.text import printable

blueprint = Blueprint(
    "pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)
csrf = CSRFProtect()
blueprint.add_app_template_filter(printable, "printable")

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
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
NAVIGATION = (
    ("pages.overview", "Overview", Right.READ),
    ("pages.job_list", "Jobs", Right.READ),
    ("pages.site_list", "Sites", Right.READ),
    ("pages.catalogue", "Data", Right.READ),
    ("pages.submit", "Submit", Right.SUBMIT),
    ("pages.administration", "Administration", Right.OPERATE),
)
CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class ForgedRequest(AccessDenied):
    """This form is too old, or it is not one of our pages that sent it: load the page again, then repeat."""


@blueprint.before_request
def _refuse_forged() -> None:
    if request.method in CHANGING:
        try:
            csrf.protect()
        except CSRFError as error:
            raise ForgedRequest from error


@blueprint.after_app_request
def _protect(reply: Response) -> Response:
    reply.headers.setdefault("Content-Security-Policy", POLICY)
    reply.headers.setdefault("X-Content-Type-Options", "nosniff")
    reply.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "pages.static":
        reply.headers.setdefault("Cache-Control", "no-store")
    return reply


@blueprint.after_request
def _say_when_nothing_changed(reply: Response) -> Response:
    """Answer a refresh that brings nothing new with 304; browsers keep the last one for that."""
    if is_refresh() and request.method == "GET" and reply.status_code == 200:
        reply.headers["Cache-Control"] = "private, no-cache"
        reply.add_etag()
        reply.make_conditional(request)
    return reply


@blueprint.app_context_processor
def _common() -> dict[str, Any]:
    who = g.get("principal")
    return {
        "signs": {str(status): sign for status, sign in SIGNS.items()},
        "statuses": [str(status) for status in MajorStatus],
        "version": DmpWorkflow.__version__,
        "open_to": current_app.config["DAMPE_SETTINGS"].server.open_to,
        "has_account": who is not None and who is not EVERYBODY,
        "layout": "fragment.html" if is_refresh() else "base.html",
        "here": request.full_path.rstrip("?"),
        "who": who,
        "navigation": [entry[:2] for entry in NAVIGATION if who is not None and who.role in entry[2].value],
        "asset": _asset,
        "again": _again,
        "may_submit": who is not None and who.role in Right.SUBMIT.value,
        "may_catalogue": who is not None and who.role in Right.CATALOGUE.value,
        "is_admin": who is not None and who.role in Right.ADMIN.value,
        "may_change": may_change,
    }


def _again(**changes: str | None) -> str:
    """Return the address of this page with other parameters; None leaves one out."""
    # Not by url_for, which takes some names for orders of its own, such as _external.
    values = {name: value for name, value in {**request.args.to_dict(), **changes}.items() if value}
    return quote(request.path) + (f"?{urlencode(values)}" if values else "")


def _asset(name: str) -> str:
    """Return the address of a static file, which browsers keep until the version changes."""
    return url_for("pages.static", filename=name, v=_fingerprint(name))


@cache
def _fingerprint(name: str) -> str:
    content = files("DmpWorkflow.frontend.pages").joinpath("static", *name.split("/")).read_bytes()
    return hashlib.sha256(content).hexdigest()[:10]


@blueprint.app_template_filter("moment")
def moment(text: str) -> str:
    """Return an ISO 8601 time as people read it."""
    return text[:16].replace("T", " ")


@blueprint.app_template_filter("lasting")
def lasting(time: timedelta) -> str:
    """Return a time span as people say it."""
    seconds = round(time.total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {seconds % 60:02d} s"
        if minutes
        else f"{seconds} s"
    )


@blueprint.app_template_filter("thousands")
def thousands(number: float) -> str:
    """Return a whole number in groups of three digits, with narrow spaces."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def is_page() -> bool:
    """Say whether a person asked for this: a page, and not the API."""
    if request.endpoint is None:
        return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    return request.blueprint == "pages"


def error_page(status: int, text: str) -> str:
    """Return the page that tells of an error."""
    return render_template("error.html", status=status, text=text)
