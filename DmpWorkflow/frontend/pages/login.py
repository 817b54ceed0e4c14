"""The way in: by name and password, or by a token."""

from urllib.parse import urlsplit

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from DmpWorkflow.core.database import credentials, users
from DmpWorkflow.frontend import sessions
from DmpWorkflow.frontend.access import Right, database, requires
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
        problem = "" if _begin() else UNKNOWN
    except AccessDenied as error:  # known, but no longer good
        problem = str(error)
    if problem:
        return render_template("login.html", goal=_goal(), problem=problem), 401
    return redirect(_goal())


@blueprint.post("/logout")
@requires(Right.PUBLIC)
def log_out() -> Response:
    """End the session."""
    sessions.end(database())
    return redirect(url_for("pages.login"))


def _begin() -> bool:
    given = request.form
    if given.get("token"):
        token = credentials.by_text(database(), given["token"].strip())
        if token is None:
            return False
        credentials.check_expiry(token)
        sessions.begin_for_token(database(), token)
        return True
    user = users.authenticate(database(), given.get("name", ""), given.get("password", ""))
    if user is None:
        return False
    sessions.begin_for_user(database(), user)
    return True


def _goal() -> str:
    """Return where to go afterwards: a page of ours, never another address."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if ours and wanted.isprintable() else url_for("pages.overview")
