"""Who may call what: one table of rights, and one declared right for every route."""

import functools
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from DmpWorkflow.core.database import audit, credentials
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal
from DmpWorkflow.frontend import sessions, throttle, transport
from DmpWorkflow.utils.errors import AccessDenied, DmpWorkflowError

View = TypeVar("View", bound=Callable[..., Any])


class Right(Enum):
    """What a route needs; the value is the set of roles that have it."""

    PUBLIC = frozenset({"anybody"})  # no credential at all
    KNOWN = frozenset({"admin", "submit", "read", "site", "attempt"})  # any credential
    READ = frozenset({"admin", "submit", "read", "site"})
    SUBMIT = frozenset({"admin", "submit"})
    FETCH = frozenset({"admin", "site"})  # a site's token: for its own site
    REPORT = frozenset({"admin", "submit", "site", "attempt"})  # of its own site, of its own attempt
    REGISTER = frozenset({"admin", "submit", "site", "attempt"})
    CATALOGUE = frozenset({"admin", "submit", "site"})
    ADMIN = frozenset({"admin"})


class Unauthenticated(DmpWorkflowError):
    """This needs a credential: a Bearer token, or Basic with any user name and the token as password."""

    http_status = 401
    exit_code = AccessDenied.exit_code


EVERYBODY = Principal(role="admin", name="everybody (auth = off)")
RIGHTS = "dampe_rights"


def requires(right: Right) -> Callable[[View], View]:
    """Declare the right that a view needs; it is checked before the view runs."""

    def declare(view: View) -> View:
        @functools.wraps(view)
        def guarded(*arguments: Any, **values: Any) -> Any:
            if right is not Right.PUBLIC:
                _check(right)
            return view(*arguments, **values)

        setattr(guarded, RIGHTS, right)
        return guarded  # type: ignore[return-value]

    return declare


def check_declarations(app: Flask) -> None:
    """Refuse an application with a route that declares no right; Flask's own static files are public."""
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.endswith("static") and not hasattr(app.view_functions[rule.endpoint], RIGHTS):
            raise RuntimeError(f"route {rule.rule} declares no right: add @requires(Right...)")


def database() -> Database:
    """Return the database of the application that serves this request."""
    found: Database = current_app.extensions["dampe_database"]
    return found


def signing_key() -> bytes:
    """Return what attempt tokens are signed with."""
    key: bytes = current_app.extensions["dampe_signing_key"]
    return key


def principal() -> Principal:
    """Return who asks; a view with a right can rely on it."""
    who: Principal = g.principal
    return who


def check_site(site: str) -> None:
    """Raise AccessDenied if the one who asks has a site, and it is another one."""
    who = principal()
    if who.role == "site" and who.site != site:
        raise AccessDenied(f"this token is for site {who.site}, not for {site}")


def sees(job: Document) -> None:
    """Raise AccessDenied unless the job is one that its reader may see."""
    check_site(job["execution_site"])


def own_site() -> str:
    """Return the only site whose jobs may be seen, or an empty text for all."""
    who = principal()
    return who.site or "" if who.role == "site" else ""


def owner() -> str:
    """Return the name that what somebody makes is kept under; empty where everybody may do everything."""
    who = principal()
    return "" if who is EVERYBODY else who.name


def actor() -> audit.Actor:
    """Return who is to be noted for what this request changes."""
    who: Principal | None = g.get("principal")
    return audit.Actor(who.name if who else "anybody", who.role if who else "none", transport.address())


def _check(right: Right) -> None:
    g.principal = _authenticate(right)
    if g.principal.role not in right.value:
        raise AccessDenied(f"a token with the role {g.principal.role} may not do this: needed is {_names(right)}")


def _names(right: Right) -> str:
    return " or ".join(sorted(right.value))


def _authenticate(right: Right) -> Principal:
    if current_app.config["DAMPE_SETTINGS"].server.auth == "off":
        return EVERYBODY
    given = request.authorization
    text = (given.token or given.password) if given else None
    if not text:
        who = sessions.principal(database()) if _takes_sessions(right) else None
        if who is None:
            raise Unauthenticated
        return who
    who = credentials.find(database(), text, signing_key())
    if who is None:
        throttle.note_unknown_token(database())
        raise Unauthenticated("this token is not known: it may be mistyped or revoked")
    return who


def _takes_sessions(right: Right) -> bool:
    """Say whether a cookie is enough: for pages, which guard against forged requests, and for what only reads."""
    return request.blueprint == "pages" or (request.method == "GET" and right in (Right.READ, Right.KNOWN))
