"""The way in: by name and password, or by a token."""

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from DmpWorkflow.core.database import audit, credentials, users
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.frontend import sessions, throttle, transport
from DmpWorkflow.frontend.access import Right, database, requires
from DmpWorkflow.frontend.pages.addresses import is_ours
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.utils.errors import AccessDenied

UNKNOWN = "That is not known. Check the name and the password, or the token."


@blueprint.get("/login")
@requires(Right.PUBLIC)
def login() -> str:
    """Show the form."""
    return render_template("login.html", goal=_goal(), problem="")


@blueprint.post("/login")
@requires(Right.PUBLIC)
def log_in() -> Response | tuple[str, int]:
    """Begin a session."""
    try:
        who = _begin()
        problem = "" if who else UNKNOWN
    except AccessDenied as error:  # known, but no longer good
        who, problem = None, str(error)
    if who is None:
        _note("login.failed", request.form.get("name") or "a token", "none")
        return render_template("login.html", goal=_goal(), problem=problem), 401
    _note("login", who["name"], who["role"])
    return redirect(_goal())


@blueprint.post("/logout")
@requires(Right.PUBLIC)
def log_out() -> Response:
    """End the session."""
    who = sessions.principal(database())
    if who is not None:
        _note("logout", who.name, who.role)
    sessions.end(database())
    return redirect(url_for("pages.login"))


def _note(action: str, name: str, role: str) -> None:
    by = audit.Actor(name, role, transport.address())
    audit.note(database(), action, f"login/{name}", by=by)


def _begin() -> Document | None:
    """Begin a session for the token or user that is given, and return that; None where it is not right."""
    given = request.form
    return _by_token(given["token"].strip()) if given.get("token") else _by_password(given.get("name", ""))


def _by_token(text: str) -> Document | None:
    token = credentials.by_text(database(), text)
    if token is None:
        throttle.note_unknown_token(database())
    else:
        credentials.check_expiry(token)
        sessions.begin_for_token(database(), token)
    return token


def _by_password(name: str) -> Document | None:
    throttle.check_login(database(), name)
    user = users.authenticate(database(), name, request.form.get("password", ""))
    if user is None:
        throttle.note_failed_login(database(), name)
    else:
        sessions.begin_for_user(database(), user)
    return user


def _goal() -> str:
    """Return where to go afterwards: a page of ours, never another address."""
    wanted = request.values.get("next", "")
    return wanted if is_ours(wanted) else url_for("pages.overview")
