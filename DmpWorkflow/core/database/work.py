"""What a claim takes to a site: definitions with their variables resolved, and the instances that use them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import claims, credentials, reporting
from DmpWorkflow.core.database.claims import ClaimRequest
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.resolution import ResolvedJob, Resolver, attributes_of
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from DmpWorkflow.utils.errors import InvalidInput

# The original's class, which its clients decode an entry to; we only ever write this word.
LEGACY_MARKER = "DmpWorkflow.core.DmpJob.DmpJob"


def claim_work(database: Database, request: ClaimRequest, secret: bytes) -> Document:
    """Claim instances and return ``definitions`` and ``instances``; a definition travels once for all that use it."""
    claimed = claims.claim(database, request)
    good, resolved = _resolved(database, claimed)
    keys = {wanted: str(number) for number, wanted in enumerate(resolved)}
    instances = [_travelling(instance, keys[_wanted(instance)], secret) for instance in good]
    definitions = {keys[wanted]: definition.to_document() for wanted, definition in resolved.items()}
    return {"definitions": definitions, "instances": instances}


def _wanted(instance: Document) -> tuple[ObjectId, str]:
    return instance["job"], instance["body"]


def _resolved(
    database: Database, claimed: Sequence[Document]
) -> tuple[list[Document], dict[tuple[ObjectId, str], ResolvedJob]]:
    """Return the instances that can travel, and their definitions; the others fail here, so that they block none."""
    resolver = Resolver(database, [instance["job"] for instance in claimed])
    resolved: dict[tuple[ObjectId, str], ResolvedJob] = {}
    problems: dict[tuple[ObjectId, str], str] = {}
    for wanted in dict.fromkeys(map(_wanted, claimed)):
        try:
            resolved[wanted] = resolver.resolve(*wanted)
        except InvalidInput as error:
            problems[wanted] = str(error)
    bad = [instance for instance in claimed if _wanted(instance) in problems]
    reporting.apply_reports(database, [_unfit(instance, problems[_wanted(instance)]) for instance in bad])
    return [instance for instance in claimed if _wanted(instance) in resolved], resolved


def _unfit(instance: Document, problem: str) -> StatusReport:
    report = Report(MajorStatus.FAILED, instance["attempt"])
    return StatusReport(
        instance["job"], instance["instanceId"], report, {"minor_status": "InvalidDefinition", "log": problem}
    )


def _travelling(instance: Document, key: str, secret: bytes) -> Document:
    job, number, attempt = str(instance["job"]), instance["instanceId"], instance["attempt"]
    expires = instance.get("waits_until")
    return {
        "job_id": job,
        "instance_id": number,
        "attempt": attempt,
        "token": credentials.attempt_token(secret, job, number, attempt),
        "definition": key,
        "lease_expires": iso(expires) if expires else None,  # None: it was reported as submitted
    }


def legacy_entries(
    database: Database, claimed: Sequence[Document], batch_defaults: Mapping[str, str], folder: str
) -> list[str]:
    """Return claimed instances as the JSON texts that the original's client decodes."""
    good, resolved = _resolved(database, claimed)
    return [
        _legacy_entry(resolved[_wanted(instance)], instance["instanceId"], batch_defaults, folder)
        for instance in good
    ]


def _legacy_entry(resolved: ResolvedJob, number: int, batch_defaults: Mapping[str, str], folder: str) -> str:
    job, definition = resolved.job, resolved.definition
    entry: dict[str, Any] = attributes_of(job) | {
        "py/object": LEGACY_MARKER,
        "wd": folder,
        "title": job["title"],
        "jobId": str(job["_id"]),
        "instanceId": number,
        "batchId": None,
        "InputFiles": [vars(file) for file in definition.input_files],
        "OutputFiles": [vars(file) for file in definition.output_files],
        "MetaData": [vars(variable) for variable in definition.variables],
        "type": job["type"],
        "release": job["release"] or None,
        "logfile": None,
        "execCommand": None,
        "executable": definition.executable,
        "exec_wrapper": definition.script,
        "script": None,
        "error_log": "",
        "batchdefaults": dict(batch_defaults),
    }
    return json.dumps(entry, sort_keys=True)
