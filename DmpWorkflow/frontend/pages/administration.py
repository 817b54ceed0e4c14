"""What administrators look after: state, maintenance, tokens, users, known words."""

from typing import Any

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from DmpWorkflow.core.database import audit, audit_search, credentials, listing, maintenance, users
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.frontend.access import Right, database, requires
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.api.administration import (
    detailed_health,
    do_maintenance,
    make_token,
    make_user,
    words_in_use,
)
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.refresh import is_refresh
from DmpWorkflow.frontend.parameters import parse
from DmpWorkflow.utils.errors import InvalidInput

ROWS_ON_A_PAGE = 100
NO_FIELDS = ("csrf_token", "again")  # of a form that are no part of what it asks for


@blueprint.get("/admin/")
@requires(Right.OPERATE)
def administration() -> str:
    """Show the state of the server, and what there is to look after; a refresh shows what changes by itself."""
    lists = {} if is_refresh() else _lists()
    return render_template(
        "administration.html", health=detailed_health(), actions=maintenance.rows(database()), **lists
    )


def _lists() -> Document:
    return {"tokens": listing.tokens(database()), "users": listing.people(database()), "words": words_in_use()}


@blueprint.get("/admin/audit")
@requires(Right.OPERATE)
def audit_log() -> str:
    """Show who changed what."""
    given = parse(schemas.AuditQuery)
    rows, cursor = audit_search.search(database(), given.chosen(), ROWS_ON_A_PAGE, given.before)
    return render_template("audit.html", given=given, rows=rows, cursor=cursor, actions=audit.ACTIONS)


@blueprint.post("/admin/maintenance")
@requires(Right.OPERATE)
def maintain() -> Response:
    """Do a maintenance action."""
    done = do_maintenance(parse(schemas.MaintenanceAction, _form()))
    return _back(f"{done['title']}: done, the result is below")  # which may be too long for a cookie


@blueprint.post("/admin/tokens")
@requires(Right.ADMIN)
def create_token() -> str:
    """Make a token, and show it in this reply only: no address, cookie or history holds it."""
    given = parse(schemas.NewToken, _form())
    token, stored = make_token(given)
    expires = iso(stored["expires"]) if stored["expires"] else None
    return render_template("token.html", token=token, given=given, expires=expires)


@blueprint.post("/admin/tokens/revoke")
@requires(Right.ADMIN)
def revoke_token() -> Response:
    """Make a token worthless, at once."""
    given = parse(schemas.Named, _form())
    credentials.revoke(database(), given.name)
    return _back(f"Revoked token {given.name}")


@blueprint.post("/admin/users")
@requires(Right.ADMIN)
def create_user() -> Response:
    """Make a user."""
    _check_repeated()
    given = parse(schemas.NewUser, _form())
    make_user(given)
    return _back(f"Created user {given.name}")


@blueprint.post("/admin/users/password")
@requires(Right.ADMIN)
def set_password() -> Response:
    """Give a user another password, which ends all sessions of that user."""
    _check_repeated()
    given = parse(schemas.NewPassword, _form())
    users.set_password(database(), given.name, given.password)
    return _back(f"Changed the password of {given.name}")


@blueprint.post("/admin/users/disable")
@requires(Right.ADMIN)
def disable_user() -> Response:
    """Keep a user out, at once, until that is taken back."""
    given = parse(schemas.Named, _form())
    users.set_disabled(database(), given.name, True)
    return _back(f"Disabled user {given.name}")


@blueprint.post("/admin/users/enable")
@requires(Right.ADMIN)
def enable_user() -> Response:
    """Let a user in again."""
    given = parse(schemas.Named, _form())
    users.set_disabled(database(), given.name, False)
    return _back(f"Enabled user {given.name}")


@blueprint.post("/admin/users/remove")
@requires(Right.ADMIN)
def remove_user() -> Response:
    """Remove a user, at once."""
    given = parse(schemas.Named, _form())
    users.remove(database(), given.name)
    return _back(f"Removed user {given.name}")


def _form() -> dict[str, Any]:
    return {name: value for name, value in request.form.items() if name not in NO_FIELDS}


def _check_repeated() -> None:
    if request.form.get("password") != request.form.get("again"):
        raise InvalidInput("the two passwords differ: go back and type them again")


def _back(message: str) -> Response:
    flash(message)
    return redirect(url_for("pages.administration"), 303)
