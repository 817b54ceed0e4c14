"""What administrators look after, tokens and users, and what operators do: known words, maintenance, health."""

import platform
import socket
from typing import Any

from flask import Blueprint, current_app

import DmpWorkflow
from DmpWorkflow.config.settings import JobDBSettings, ServerSettings
from DmpWorkflow.core.database import audit_search, credentials, listing, maintenance, users, words
from DmpWorkflow.core.database import health as database_health
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.maintenance import Options
from DmpWorkflow.core.database.submission import Words
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.access import Right, database, principal, requires
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.parameters import parse

blueprint = Blueprint("administration", __name__, url_prefix="/administration")


@blueprint.get("/tokens/")
@requires(Right.ADMIN)
def list_tokens() -> dict[str, Any]:
    """List tokens, less their secrets."""
    return {"result": "ok", "tokens": listing.tokens(database())}


@blueprint.post("/tokens/")
@requires(Right.ADMIN)
def create_token() -> dict[str, Any]:
    """Make a token; the reply is the only place where it can be seen."""
    return {"result": "ok", "token": make_token(parse(schemas.NewToken))[0]}


def make_token(given: schemas.NewToken) -> tuple[str, Document]:
    """Make a token and return its text, and what is stored of it."""
    _known().check_site(given.site)
    expires = credentials.expiry(given.expires)
    return credentials.create(database(), given.name, given.role, given.site, expires)


@blueprint.post("/tokens/revoke/")
@requires(Right.ADMIN)
def revoke_token() -> dict[str, Any]:
    """Make a token worthless, at once."""
    credentials.revoke(database(), parse(schemas.Named).name)
    return {"result": "ok"}


@blueprint.get("/users/")
@requires(Right.ADMIN)
def list_users() -> dict[str, Any]:
    """List users."""
    return {"result": "ok", "users": listing.people(database())}


@blueprint.post("/users/")
@requires(Right.ADMIN)
def create_user() -> dict[str, Any]:
    """Make a user who logs in with a password."""
    make_user(parse(schemas.NewUser))
    return {"result": "ok"}


def make_user(given: schemas.NewUser) -> None:
    """Make a user."""
    _known().check_site(given.site)
    users.create(database(), given.name, given.password, given.role, given.site)


@blueprint.post("/users/password/")
@requires(Right.ADMIN)
def set_password() -> dict[str, Any]:
    """Give a user another password, which ends all sessions of that user."""
    given = parse(schemas.NewPassword)
    users.set_password(database(), given.name, given.password)
    return {"result": "ok"}


@blueprint.post("/users/disable/")
@requires(Right.ADMIN)
def disable_user() -> dict[str, Any]:
    """Keep a user out, at once, until that is taken back."""
    users.set_disabled(database(), parse(schemas.Named).name, True)
    return {"result": "ok"}


@blueprint.post("/users/enable/")
@requires(Right.ADMIN)
def enable_user() -> dict[str, Any]:
    """Let a user in again."""
    users.set_disabled(database(), parse(schemas.Named).name, False)
    return {"result": "ok"}


@blueprint.post("/users/remove/")
@requires(Right.ADMIN)
def remove_user() -> dict[str, Any]:
    """Remove a user, at once."""
    users.remove(database(), parse(schemas.Named).name)
    return {"result": "ok"}


@blueprint.get("/words/")
@requires(Right.OPERATE)
def list_words() -> dict[str, Any]:
    """List the types and sites that are configured or used."""
    return {"result": "ok"} | words_in_use()


def words_in_use() -> Document:
    """Return ``types`` and ``sites``, each with what is configured and what jobs use."""
    return words.in_use(database(), Words(types=_known().task_types, sites=_known().batch_sites))


@blueprint.get("/health/")
@requires(Right.OPERATE)
def health() -> dict[str, Any]:
    """Say how the server and its database are, in more detail than everybody may know."""
    return {"result": "ok"} | detailed_health()


def detailed_health() -> Document:
    """Return facts about the ``server`` process and about the ``database``."""
    access: ServerSettings = current_app.config["DAMPE_SETTINGS"].server
    server = {
        "version": DmpWorkflow.__version__,
        "python": platform.python_version(),
        "hostname": socket.gethostname(),
        "auth": access.openness,
        "open_to": access.open_to,
    }
    return {"server": server, "database": database_health.of_database(database())}


@blueprint.get("/maintenance/")
@requires(Right.OPERATE)
def list_maintenance() -> dict[str, Any]:
    """List the maintenance actions with their last results."""
    return {"result": "ok", "actions": maintenance.rows(database())}


@blueprint.post("/maintenance/")
@requires(Right.OPERATE)
def maintain() -> dict[str, Any]:
    """Do a maintenance action, and say what came of it."""
    return {"result": "ok", "action": do_maintenance(parse(schemas.MaintenanceAction))}


def do_maintenance(given: schemas.MaintenanceAction) -> Document:
    """Do a maintenance action and return its row."""
    patience = housekeeping.patience(current_app.config["DAMPE_SETTINGS"].server)
    return maintenance.run(database(), given.action, principal().name, Options(given.dry_run, patience))


@blueprint.get("/audit/")
@requires(Right.OPERATE)
def audit_log() -> dict[str, Any]:
    """List who changed what, the newest first."""
    given = parse(schemas.AuditQuery)
    rows, after = audit_search.search(database(), given.chosen(), given.limit, given.before)
    return {"result": "ok", "rows": rows, "next": after}


def _known() -> JobDBSettings:
    known: JobDBSettings = current_app.config["DAMPE_SETTINGS"].jobdb
    return known
