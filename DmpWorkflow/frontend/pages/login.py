"""The way in: by name and password, or by a token."""

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from DmpWorkflow.core.database import credentials, users
from DmpWorkflow.frontend import sessions
from DmpWorkflow.frontend.access import Right, database, requires
from DmpWorkflow.frontend.pages.addresses import is_ours
from DmpWorkflow.frontend.pages.blueprint import blueprint


@blueprint.get("/login")
@requires(Right.PUBLIC)
def login() -> str:
    """Show the form."""
    return render_template("login.html", goal=_goal(), failed=False)


@blueprint.post("/login")
@requires(Right.PUBLIC)
def log_in() -> Response | tuple[str, int]:
    """Begin a session."""
    if not _begin():
        return render_template("login.html", goal=_goal(), failed=True), 401
    return redirect(_goal())


@blueprint.post("/logout")
@requires(Right.PUBLIC)
def log_out() -> Response:
    """End the session."""
    sessions.end()
    return redirect(url_for("pages.login"))


def _begin() -> bool:
    given = request.form
    if given.get("token"):
        token = credentials.by_text(database(), given["token"].strip())
        if token is None:
            return False
        sessions.begin_for_token(token)
        return True
    user = users.authenticate(database(), given.get("name", ""), given.get("password", ""))
    if user is None:
        return False
    sessions.begin_for_user(user)
    return True


def _goal() -> str:
    """Return where to go afterwards: a page of ours, never another address."""
    wanted = request.values.get("next", "")
    return wanted if is_ours(wanted) else url_for("pages.overview")
