"""Who may call what: one table of rights, and one declared right for every route."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from flask import Flask, current_app, g, has_request_context, request

from DmpWorkflow.core.database import audit, credentials, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal
from DmpWorkflow.frontend import sessions, throttle, transport
from DmpWorkflow.utils.errors import AccessDenied, DmpWorkflowError

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Holders:
    """The roles that have a right, by name: with everything, or with their ``own`` site, jobs or attempt only."""

    everything: str
    own: str = ""

    def __contains__(self, role: str) -> bool:
        return role in self.everything.split() or self.only_own(role)

    def only_own(self, role: str) -> bool:
        """Say whether the role has this right with what is its own, and with nothing else."""
        return role in self.own.split()

    def __str__(self) -> str:
        roles = {*self.everything.split(), *self.own.split()} - {"old-client"}  # which no token has
        return " or ".join(sorted(roles))


# An "old-client" is whoever sends no credential from a network with auth = optional; see OLD_CLIENTS.
class Right(Enum):
    """What a route needs, and which roles have it."""

    PUBLIC = Holders("anybody")  # no credential at all
    KNOWN = Holders("admin operator submit read site attempt")  # any credential
    READ = Holders("admin operator submit read old-client", own="site")
    SUBMIT = Holders("admin operator submit old-client")  # make jobs
    CHANGE = Holders("admin operator", own="submit old-client")  # jobs that there are, and their instances
    FETCH = Holders("admin old-client", own="site")
    BEAT = Holders("admin operator submit old-client site")  # the original's signs of life
    REPORT = Holders("admin operator old-client", own="submit site attempt")
    REGISTER = Holders("admin operator submit old-client", own="site attempt")  # files, for a site
    CATALOGUE = Holders("admin operator submit", own="site")  # files, on the page
    OPERATE = Holders("admin operator")  # maintenance, and how the server is
    ADMIN = Holders("admin")  # tokens and users


# All that the original's clients ask for, and so all that goes without a credential where auth = optional.
OLD_CLIENTS = frozenset(
    {
        "jobs.create_job", "jobs.add_instances", "status.report", "status.report_many", "status.find",
        "sites.old_claim", "sites.watched", "sites.heartbeat", "sites.list_heartbeats", "sites.change_catalogue",
        "sites.list_files",
    }
)  # fmt: skip


class Unauthenticated(DmpWorkflowError):
    """This needs a credential: a Bearer token, or Basic with any user name and the token as password."""

    http_status = 401
    exit_code = AccessDenied.exit_code


EVERYBODY = Principal(role="admin", name="everybody (auth = off)")
OLD_CLIENT = Principal(role="old-client", name="an old client (auth = optional)")
JOB_OWNERS = ("submit", "old-client")  # the roles whose own things are jobs; what an old client makes is nobody's
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
    """Refuse an application with a route that declares no right; the pages' static files are public."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "pages.static" and not hasattr(app.view_functions[rule.endpoint], RIGHTS):
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
    """Return the name that what somebody makes is kept under; empty for those without a name."""
    who = principal()
    return "" if who is EVERYBODY or who is OLD_CLIENT else who.name


def own_jobs_only(right: Right = Right.CHANGE) -> bool:
    """Say whether the one who asks has this right with its own jobs only."""
    role = principal().role
    return role in JOB_OWNERS and right.value.only_own(role)


def check_owner(job: Document) -> None:
    """Raise AccessDenied, with the owner's name, unless the one who asks may change this job."""
    if own_jobs_only():
        jobs.check_owner(job, owner())


def may_change(job_owner: str) -> bool:
    """Say whether the one who asks may change jobs of this owner."""
    return principal().role in Right.CHANGE.value and not (own_jobs_only() and job_owner != owner())


def actor() -> audit.Actor:
    """Return who is to be noted for what is changed: by this request, or outside of one by the program itself."""
    if not has_request_context():
        return audit.this_program()
    who: Principal | None = g.get("principal")
    return audit.Actor(who.name if who else "anybody", who.role if who else "none", transport.address())


def _check(right: Right) -> None:
    g.principal = _authenticate(right)
    if g.principal.role not in right.value:
        raise AccessDenied(f"a token with the role {g.principal.role} may not do this: needed is {right.value}")


def _authenticate(right: Right) -> Principal:
    auth = current_app.config["DAMPE_SETTINGS"].server.auth_of(request.remote_addr or "")
    if auth == "off":
        return _without_credential(EVERYBODY)
    if "Authorization" in request.headers:
        return _of_header()
    who = sessions.principal(database()) if _takes_sessions(right) else None
    if who is None and auth == "optional" and request.endpoint in OLD_CLIENTS:
        return _without_credential(OLD_CLIENT)
    if who is None:
        raise Unauthenticated
    return who


def _without_credential(who: Principal) -> Principal:
    """Return who it is; raises AccessDenied where a browser sends this for a page of another site.

    Our own pages have a shield of their own.
    """
    origin, fetched = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    foreign = fetched == "cross-site" or (origin is not None and origin.partition("://")[2] != request.host)
    if foreign and request.blueprint != "pages":
        raise AccessDenied("this comes from a page of another site: it needs a credential")
    return who


def _of_header() -> Principal:
    given = request.authorization
    text = (given.token or given.password) if given else None
    if not text:
        raise Unauthenticated
    who = credentials.find(database(), text, signing_key())
    if who is None:
        throttle.note_unknown_token(database())
        raise Unauthenticated("this token is not known: it may be mistyped or revoked")
    return who


def _takes_sessions(right: Right) -> bool:
    """Say whether a cookie is enough: for pages, which guard against forged requests, and for what only reads."""
    return request.blueprint == "pages" or (request.method == "GET" and right in (Right.READ, Right.KNOWN))
