"""Reports about attempts, one or many, of old and new clients; and which instances are in a status."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from flask import Blueprint, current_app, request

from DmpWorkflow.core.batch_id import normalise_batch_id
from DmpWorkflow.core.database import jobs, listing, reporting
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.literals import dictionary
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from DmpWorkflow.frontend import housekeeping
from DmpWorkflow.frontend.access import (
    Right,
    check_owner,
    database,
    own_jobs_only,
    own_site,
    owner,
    principal,
    requires,
)
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.parameters import overrides, parameters, parse
from DmpWorkflow.utils.errors import AccessDenied, DmpWorkflowError, InvalidInput, NotFound
from DmpWorkflow.utils.text import one_line

blueprint = Blueprint("status", __name__)

PLAIN = ("minor_status", "hostname", "Nevents", "cpu", "memory", "cpu_max", "mem_max", "log")


@blueprint.post("/jobstatus/")
@requires(Right.REPORT)
def report() -> dict[str, Any]:
    """Take one report, or roll an instance back (major_status "New")."""
    given = _arguments(dictionary(parameters().get("args"), "args"))
    if given.major_status == MajorStatus.NEW:
        return _roll_back(given)
    result = _apply([given])[0]
    if isinstance(result, DmpWorkflowError):
        raise result
    return {"result": "ok", "outcome": result.value}


def _arguments(values: Mapping[str, Any]) -> schemas.StatusArguments:
    # A roll-back of an old client empties the lists of samples, which a report never does.
    cleaned = {name: value for name, value in values.items() if not (name in ("cpu", "memory") and value == [])}
    return parse(schemas.StatusArguments, cleaned)


def _roll_back(given: schemas.StatusArguments) -> dict[str, Any]:
    if principal().role not in Right.CHANGE.value:
        raise AccessDenied(f"a roll-back needs a token with the role {Right.CHANGE.value}")
    check_owner(jobs.by_id(database(), ObjectId(given.t_id)))
    body = None if given.body is None else overrides(given.body).to_json()
    if not roll_back(database(), ObjectId(given.t_id), [given.inst_id], body):
        raise NotFound("JobInstance matching query does not exist.")
    return {"result": "ok", "outcome": Outcome.APPLY.value}


def _apply(items: Sequence[schemas.StatusArguments]) -> list[Outcome | DmpWorkflowError]:
    """Apply those that the sender may report and return a result for each."""
    results: dict[int, Outcome | DmpWorkflowError] = {}
    accepted: list[tuple[int, StatusReport]] = []
    reported = _owned_jobs(items)
    for position, item in enumerate(items):
        try:
            _check_sender(item, reported)
            accepted.append((position, _status_report(item)))
        except DmpWorkflowError as error:
            results[position] = error
    rules = housekeeping.rules(current_app.config["DAMPE_SETTINGS"].server)
    applied = reporting.apply_reports(database(), [report for _, report in accepted], own_site() or None, rules)
    results |= {position: result for (position, _), result in zip(accepted, applied, strict=True)}
    return [results[position] for position in range(len(items))]


def _owned_jobs(items: Sequence[schemas.StatusArguments]) -> dict[ObjectId, Document]:
    """Return the jobs whose owners matter: those of a sender who reports of its own jobs only."""
    reported = {ObjectId(item.t_id) for item in items} if own_jobs_only(Right.REPORT) else set()
    return jobs.with_owners(database(), reported)


def _check_sender(item: schemas.StatusArguments, reported: Mapping[ObjectId, Document]) -> None:
    who = principal()
    if job := reported.get(ObjectId(item.t_id)):
        jobs.check_owner(job, owner())
    if who.role != "attempt":
        return
    if (who.job, who.instance) != (item.t_id, item.inst_id):
        raise AccessDenied(f"this token is for {who.name}, not for instance {item.inst_id} of {item.t_id}")
    if item.attempt != who.attempt:
        raise StaleAttempt(f"this token is for {who.name}, the report for attempt {item.attempt}: stop")


def _status_report(item: schemas.StatusArguments) -> StatusReport:
    try:
        status = MajorStatus(item.major_status)
    except ValueError:
        raise InvalidInput(f"status not found in supported list of statii: {item.major_status}") from None
    values = {name: getattr(item, name) for name in PLAIN} | {"batchId": normalise_batch_id(item.batchId)}
    return StatusReport(
        ObjectId(item.t_id),
        item.inst_id,
        Report(status, item.attempt, item.sequence, item.runner),
        values,
        lost=item.lost,
    )


@blueprint.post("/jobstatusBulk/")
@requires(Right.REPORT)
def report_many() -> dict[str, Any]:
    """Take many reports, each with its own result; or the fork's form, one status for many instances."""
    if not request.is_json:
        return _forks_bulk(parameters())
    given = parse(schemas.BulkReports)
    parsed: list[schemas.StatusArguments | InvalidInput] = [_parsed(values) for values in given.reports]
    results = iter(_apply([item for item in parsed if isinstance(item, schemas.StatusArguments)]))
    return {
        "result": "ok",
        "results": [_result(item if isinstance(item, InvalidInput) else next(results)) for item in parsed],
    }


def _parsed(values: Mapping[str, Any]) -> schemas.StatusArguments | InvalidInput:
    try:
        return _arguments(values)
    except InvalidInput as error:
        return error


def _result(result: Outcome | DmpWorkflowError) -> dict[str, Any]:
    if isinstance(result, Outcome):
        return {"result": "ok", "outcome": result.value}
    stop = isinstance(result, StaleAttempt)
    return {"result": "nok", "status": result.http_status, "error": one_line(result), "stop": stop}


def _forks_bulk(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        items = json.loads(values.get("data", "[]"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("data: no valid JSON") from error
    if not isinstance(items, list) or len(items) > 10_000 or not all(isinstance(item, dict) for item in items):
        raise InvalidInput("data: expected a list of at most 10000 objects")
    named = [parse(schemas.BulkItem, item) for item in items]
    common = {"major_status": values.get("status"), "minor_status": values.get("minor_status")}
    reports = [_arguments(common | {"t_id": item.t_id, "inst_id": item.instanceId}) for item in named]
    results = _apply(reports)
    applied = sum(isinstance(result, Outcome) for result in results)
    refused = [result for result in results if isinstance(result, DmpWorkflowError)]
    if refused and not applied:
        raise refused[0]
    return {"result": "ok", "njobs": applied}


@blueprint.get("/jobstatus/")
@requires(Right.READ)
def find() -> dict[str, Any]:
    """Return which instances of a job are in a status and a range: n_min < number <= n_max."""
    given = parse(schemas.StatusQuery)
    found = listing.find_instances(
        database(), given.title, given.type, given.stat, given.inst, given.n_min, given.n_max, own_site()
    )
    if not found:
        raise NotFound("could not find any job instances matching query")
    return {"result": "ok", "jobs": found}
