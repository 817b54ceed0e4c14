"""The description of the API as OpenAPI 3.1, made from the routes themselves and the schemas of their requests."""

import re
from typing import Any, NamedTuple

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import DmpWorkflow
from DmpWorkflow.frontend.access import RIGHTS, Right
from DmpWorkflow.frontend.api import administration_replies, replies, schemas, statistics_replies
from DmpWorkflow.frontend.idempotency import HEADER, PATTERN

REFERENCE = "#/components/schemas/{model}"
PATH_TYPES: dict[str, dict[str, Any]] = {"int": {"type": "integer", "minimum": 0}, "default": {"type": "string"}}
CONVERTER = re.compile(r"<(?:(?P<type>\w+)(?:\((?P<words>[^)]*)\))?:)?(?P<name>\w+)>")


class Takes(NamedTuple):
    """What a route takes: the model, and in which encodings."""

    model: type[BaseModel]
    query: bool = False
    json: bool = False
    form: bool = False
    file: bool = False


class JsonArguments(BaseModel):
    """POST /jobstatus/ as JSON: the arguments of one report."""

    args: schemas.StatusArguments


REQUESTS: dict[str, Takes] = {
    "jobs.create_job": Takes(schemas.NewJob, file=True),
    "jobs.check_job": Takes(schemas.NewJob, file=True),
    "jobs.add_instances": Takes(schemas.NewInstances, json=True, form=True),
    "jobs.list_jobs": Takes(schemas.JobQuery, query=True),
    "jobs.export_instances": Takes(schemas.ExportQuery, query=True),
    "jobs.change_job": Takes(schemas.JobChange, json=True),
    "jobs.remove_job": Takes(schemas.Removal, json=True),
    "jobs.clone_job": Takes(schemas.NewClone, json=True),
    "jobs.list_instances": Takes(schemas.InstanceQuery, query=True),
    "jobs.roll_back_instances": Takes(schemas.RollBack, json=True),
    "jobs.kill_instances": Takes(schemas.Kill, json=True),
    "status.report": Takes(JsonArguments, json=True),
    "status.report_many": Takes(schemas.BulkReports, json=True),
    "status.find": Takes(schemas.StatusQuery, query=True),
    "sites.claim": Takes(schemas.Claim, json=True),
    "sites.old_claim": Takes(schemas.OldClaim, query=True),
    "sites.agent_heartbeat": Takes(schemas.AgentHeartbeat, json=True),
    "sites.heartbeat": Takes(schemas.Heartbeat, json=True, form=True),
    "sites.list_heartbeats": Takes(schemas.Limit, query=True),
    "sites.watched": Takes(schemas.Site, query=True),
    "sites.change_catalogue": Takes(schemas.CatalogueChange, json=True, form=True),
    "sites.list_files": Takes(schemas.CatalogueQuery, query=True),
    "statistics.work": Takes(schemas.Span, query=True),
    "statistics.ends": Takes(schemas.Span, query=True),
    "statistics.failures": Takes(schemas.SiteChoice, query=True),
    "statistics.sites": Takes(schemas.SiteChoice, query=True),
    "statistics.hosts": Takes(schemas.OneSite, query=True),
    "statistics.agents": Takes(schemas.SiteChoice, query=True),
    "statistics.beats": Takes(schemas.SiteSpan, query=True),
    "statistics.job_ends": Takes(schemas.Span, query=True),
    "administration.create_token": Takes(schemas.NewToken, json=True),
    "administration.revoke_token": Takes(schemas.Named, json=True),
    "administration.create_user": Takes(schemas.NewUser, json=True),
    "administration.set_password": Takes(schemas.NewPassword, json=True),
    "administration.disable_user": Takes(schemas.Named, json=True),
    "administration.enable_user": Takes(schemas.Named, json=True),
    "administration.remove_user": Takes(schemas.Named, json=True),
    "administration.maintain": Takes(schemas.MaintenanceAction, json=True),
    "administration.audit_log": Takes(schemas.AuditQuery, query=True),
    "sites.search_files": Takes(schemas.FileQuery, query=True),
}
REPLIES: dict[str, type[BaseModel]] = {
    "jobs.create_job": replies.MadeJobs,
    "jobs.check_job": replies.CheckedJobs,
    "jobs.add_instances": replies.MadeInstances,
    "jobs.list_jobs": replies.Jobs,
    "jobs.show_job": replies.OneJob,
    "jobs.change_job": replies.OneJob,
    "jobs.remove_job": replies.Removed,
    "jobs.clone_job": replies.MadeJobs,
    "jobs.list_instances": replies.Instances,
    "jobs.show_instance": replies.OneInstance,
    "jobs.roll_back_instances": replies.RolledBack,
    "jobs.kill_instances": replies.Killed,
    "status.report": replies.Reported,
    "status.report_many": replies.ReportResults,
    "status.find": replies.FoundInstances,
    "sites.claim": replies.Claimed,
    "sites.old_claim": replies.OldClaimed,
    "sites.agent_heartbeat": replies.Answers,
    "sites.heartbeat": replies.Reply,
    "sites.list_heartbeats": replies.Beats,
    "sites.watched": replies.Watched,
    "sites.change_catalogue": replies.ChangedFiles,
    "sites.list_files": replies.Files,
    "statistics.work": statistics_replies.Chart,
    "statistics.ends": statistics_replies.Chart,
    "statistics.failures": statistics_replies.FailureReasons,
    "statistics.sites": statistics_replies.SiteHealths,
    "statistics.hosts": statistics_replies.Hosts,
    "statistics.agents": statistics_replies.Agents,
    "statistics.beats": statistics_replies.Chart,
    "statistics.job_progress": statistics_replies.JobProgress,
    "statistics.instance_samples": statistics_replies.SampleChart,
    "statistics.job_ends": statistics_replies.Chart,
    "statistics.job_distribution": statistics_replies.Histogram,
    "statistics.job_failures": statistics_replies.FailureGroups,
    "administration.list_tokens": administration_replies.Tokens,
    "administration.create_token": administration_replies.MadeToken,
    "administration.revoke_token": replies.Reply,
    "administration.list_users": administration_replies.Users,
    "administration.create_user": replies.Reply,
    "administration.set_password": replies.Reply,
    "administration.disable_user": replies.Reply,
    "administration.enable_user": replies.Reply,
    "administration.remove_user": replies.Reply,
    "administration.list_words": administration_replies.KnownWords,
    "administration.health": administration_replies.DetailedHealth,
    "administration.list_maintenance": administration_replies.Maintenance,
    "administration.maintain": administration_replies.Maintained,
    "administration.audit_log": administration_replies.AuditLog,
    "sites.search_files": replies.FileRows,
    "service.health": replies.Health,
    "service.whoami": replies.WhoAmI,
}
CREATING = frozenset({"jobs.create_job", "jobs.add_instances", "jobs.clone_job"})  # may carry a key
KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "a word of the sender's own for this request: repeated with it, nothing is made twice",
    "schema": {"type": "string", "pattern": PATTERN},
}
ERRORS = {
    "400": "the request cannot be read",
    "401": "a credential is needed",
    "403": "the credential does not allow it",
    "404": "there is no such thing",
    "409": "the present state does not allow it",
    "413": "the body is too large",
    "415": "the encoding is not understood",
    "422": "a field is not valid",
    "429": "too many credentials from this address were wrong: wait as Retry-After says",
    "503": "try again later",
}


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of all API routes of ``app``."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        right = getattr(app.view_functions[rule.endpoint], RIGHTS, None)
        if right is None or rule.endpoint.startswith("pages."):
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = CONVERTER.sub(r"{\g<name>}", rule.rule)
            paths.setdefault(path, {})[method.lower()] = _operation(app, rule.endpoint, rule.rule, right)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DmpWorkflow", "version": DmpWorkflow.__version__},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "any user name, the token as password"},
            },
        },
    }


def _schemas() -> dict[str, Any]:
    requests = {takes.model for takes in REQUESTS.values()} | {schemas.StatusArguments}
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in requests]
    answers: set[type[BaseModel]] = {replies.Error, replies.ExportedInstance, *REPLIES.values()}
    modes += [(model, "serialization") for model in answers]
    modes.sort(key=lambda item: item[0].__name__)
    _, found = models_json_schema(modes, ref_template=REFERENCE)
    definitions: dict[str, Any] = found["$defs"]
    return definitions


def _operation(app: Flask, endpoint: str, rule: str, right: Right) -> dict[str, Any]:
    summary = (app.view_functions[endpoint].__doc__ or endpoint).strip()
    operation: dict[str, Any] = {
        "operationId": endpoint.replace(".", "_"),
        "summary": summary,
        "parameters": _path_parameters(rule),
        "responses": _responses(endpoint, REQUESTS.get(endpoint)),
        "security": [] if right is Right.PUBLIC else [{"bearer": []}, {"basic": []}],
    }
    operation["parameters"] += [KEY] if endpoint in CREATING else []
    if takes := REQUESTS.get(endpoint):
        operation["parameters"] += _query(takes) if takes.query else []
        if content := _content(takes):
            operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(rule: str) -> list[dict[str, Any]]:
    return [
        {"name": found["name"], "in": "path", "required": True, "schema": _path_type(found)}
        for found in CONVERTER.finditer(rule)
    ]


def _path_type(found: re.Match[str]) -> dict[str, Any]:
    if found["words"]:
        return {"type": "string", "enum": [word.strip() for word in found["words"].split(",")]}
    return PATH_TYPES[found["type"] or "default"]


def _query(takes: Takes) -> list[dict[str, Any]]:
    schema = takes.model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _plain(field)}
        for name, field in schema["properties"].items()
    ]


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """Leave out null: a query cannot hold it."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    return options[0] if options else {name: value for name, value in field.items() if name != "default"}


def _content(takes: Takes) -> dict[str, Any]:
    reference = {"$ref": REFERENCE.format(model=takes.model.__name__)}
    content: dict[str, Any] = {}
    if takes.json:
        content["application/json"] = {"schema": reference}
    if takes.form:
        content["application/x-www-form-urlencoded"] = {"schema": reference}
    if takes.file:
        file = {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary"}},
        }
        content["multipart/form-data"] = {"schema": {"allOf": [reference, file]}}
    return content


def _responses(endpoint: str, takes: Takes | None) -> dict[str, Any]:
    if endpoint == "service.schema":
        return {"200": {"description": "the schema", "content": {"application/xml": {"schema": {"type": "string"}}}}}
    error = {"$ref": REFERENCE.format(model="Error")}
    done = _exported() if endpoint == "jobs.export_instances" else _done(endpoint, takes, error)
    failures = {status: {"description": text, "content": _json(error)} for status, text in ERRORS.items()}
    if endpoint == "service.health":
        failures["503"]["content"] = done
    return {"200": {"description": "done", "content": done}} | failures


def _done(endpoint: str, takes: Takes | None, error: dict[str, Any]) -> dict[str, Any]:
    if endpoint == "service.openapi":
        return _json({"type": "object"})
    done = {"$ref": REFERENCE.format(model=REPLIES[endpoint].__name__)}
    # A form-encoded request is answered with status 200 in any case, as old clients expect.
    return _json({"anyOf": [done, error]} if takes and (takes.form or takes.file) else done)


def _exported() -> dict[str, Any]:
    row = {"$ref": REFERENCE.format(model="ExportedInstance")}
    return {"text/csv": {"schema": {"type": "string"}}} | _json({"type": "array", "items": row})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
