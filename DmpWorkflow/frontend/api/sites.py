"""What sites need: work, signs of life, the data catalogue."""

import uuid
from datetime import timedelta
from typing import Any

from bson import ObjectId
from flask import Blueprint, current_app, request

from DmpWorkflow.core.database import attempts, claims, counts, data_catalogue, heartbeats, listing, snapshots, work
from DmpWorkflow.core.database.claims import ClaimRequest
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.access import Right, check_site, database, own_site, principal, requires, signing_key
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.parameters import parse
from DmpWorkflow.utils.errors import AccessDenied, InvalidInput

blueprint = Blueprint("sites", __name__)

OLD_LEASE = timedelta(hours=1)  # an old client reports "Submitted" within seconds, or never


@blueprint.post("/newjobs/")
@requires(Right.FETCH)
def claim() -> dict[str, Any]:
    """Hand out instances to an agent."""
    given = parse(schemas.Claim)
    check_site(given.site)
    lease = timedelta(seconds=given.lease)
    wanted = ClaimRequest(given.site, given.agent, given.request_id, given.limit, lease)
    return {"result": "ok"} | work.claim_work(database(), wanted, signing_key())


@blueprint.get("/newjobs/")
@requires(Right.FETCH)
def old_claim() -> dict[str, Any]:
    """Hand out instances to an old client, or count those in some statuses (fastQuery)."""
    given = parse(schemas.OldClaim)
    check_site(given.site)
    if given.fastQuery == "True":
        return {"result": "ok", "jobs": _count(given)}
    if given.status != MajorStatus.NEW or given.pilot == "True" or given.type == "pilot":
        return {"result": "ok", "jobs": []}  # there are no pilots, and nothing else is ever handed out
    agent = f"old client at {request.remote_addr}"
    wanted = ClaimRequest(given.site, agent, uuid.uuid4().hex, given.limit, OLD_LEASE)
    claimed = claims.claim(database(), wanted)
    return {"result": "ok", "jobs": work.legacy_entries(database(), claimed, _batch_defaults(), _work_folder())}


def _count(given: schemas.OldClaim) -> int:
    words = (given.status_list or given.status).split(",")
    try:
        statuses = {MajorStatus(word.strip()) for word in words}
    except ValueError as error:
        raise InvalidInput(f"status_list: {error}") from error
    total = counts.of_site(database(), given.site)
    return sum(total[status] for status in statuses)


def _batch_defaults() -> dict[str, str]:
    """Return the server's own defaults; an old client overrides them with its site's."""
    site = current_app.config["DAMPE_SETTINGS"].site
    minutes = site.hpc_cputime_seconds // 60
    return {
        "system": site.hpc_system,
        "requirements": site.hpc_requirements,
        "extra": site.hpc_extra,
        "queue": site.hpc_queue,
        "memory": str(site.hpc_memory_mb),
        "cputime": f"{minutes // 60:02d}:{minutes % 60:02d}",
        "name": site.name,
    }


def _work_folder() -> str:
    folder: str = current_app.config["DAMPE_SETTINGS"].site.workdir
    return folder or "."


@blueprint.post("/agents/heartbeat/")
@requires(Right.FETCH)
def agent_heartbeat() -> dict[str, Any]:
    """Take an agent's sign of life, and answer for each attempt that it holds."""
    given = parse(schemas.AgentHeartbeat)
    check_site(given.site)
    beat = given.model_dump(include={"agent", "hostname", "version", "problem"})
    holds = None if given.holds is None else [_held(hold) for hold in given.holds]
    patience = housekeeping.patience(current_app.config["DAMPE_SETTINGS"].server)
    answers = heartbeats.agent_beat(database(), beat, given.site, holds, patience)
    snapshots.take_when_due(database(), current_app.extensions["dampe_clockwork"])
    return {"result": "ok", "answers": [_answered(answer, held) for answer, held in answers]}


def _held(hold: schemas.Hold) -> heartbeats.Held:
    return heartbeats.Held(ObjectId(hold.job_id), hold.attempt, hold.instances)


def _answered(answer: heartbeats.Answer, held: heartbeats.Held) -> dict[str, Any]:
    return {"answer": str(answer), "job_id": str(held.job), "attempt": held.attempt, "instances": held.instances}


@blueprint.post("/testDB/")
@requires(Right.BEAT)
def heartbeat() -> dict[str, Any]:
    """Take a sign of life."""
    given = parse(schemas.Heartbeat)
    heartbeats.beat(database(), given.hostname, given.process, given.version)
    return {"result": "ok"}


@blueprint.get("/testDB/")
@requires(Right.READ)
def list_heartbeats() -> dict[str, Any]:
    """Return the hosts that were heard of last."""
    return {"result": "ok", "beats": heartbeats.recent(database(), parse(schemas.Limit).limit)}


@blueprint.get("/watchdog/")
@requires(Right.FETCH)
def watched() -> dict[str, Any]:
    """Return a site's running instances with their limits."""
    site = parse(schemas.Site).site
    check_site(site)
    return {"result": "ok", "jobs": listing.watched(database(), site)}


@blueprint.post("/datacat/")
@requires(Right.REGISTER)
def change_catalogue() -> dict[str, Any]:
    """Register files, set their status, or delete them."""
    given = parse(schemas.CatalogueChange)
    _check_catalogue(given)
    names = [name for name in given.filename.split(",") if name]
    if given.action == "register":
        ids = data_catalogue.register(database(), given.site, names, given.filetype, given.status, given.overwrite)
    elif given.action == "setStatus":
        ids = data_catalogue.set_status(database(), given.site, names, given.status)
    elif given.action == "delete":
        ids = data_catalogue.delete(database(), given.site, names)
    else:
        raise InvalidInput(f"action {given.action!r}: expected register, setStatus or delete")
    return {"result": "ok", "docId": ids}


def _check_catalogue(given: schemas.CatalogueChange) -> None:
    check_site(given.site)
    who = principal()
    if who.role != "attempt":
        return
    site = attempts.site_of_current(database(), who)
    if given.action != "register" or given.overwrite or site != given.site:
        raise AccessDenied("a payload may only register files at its own site")


@blueprint.get("/datacat/")
@requires(Right.READ)
def list_files() -> dict[str, Any]:
    """Return names of files."""
    given = parse(schemas.CatalogueQuery)
    if principal().role == "site":
        check_site(given.site)
    return {
        "result": "ok",
        "files": data_catalogue.find(database(), given.site, given.status, given.filetype, given.limit),
    }


@blueprint.get("/datacat/files/")
@requires(Right.READ)
def search_files() -> dict[str, Any]:
    """Return files with all that is known of them, page by page."""
    given = parse(schemas.FileQuery)
    if own_site():
        given.site = given.site or own_site()
        check_site(given.site)
    rows, after = data_catalogue.page(database(), given.as_query(), given.limit, given.after)
    return {"result": "ok", "files": rows, "next": after}
