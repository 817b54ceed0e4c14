"""What a claim takes to a site: definitions with their variables resolved, and the instances that use them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import claims, credentials
from DmpWorkflow.core.database.claims import ClaimRequest
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.core.job_xml import parse_jobs
from DmpWorkflow.core.overrides import Overrides, from_json
from DmpWorkflow.core.payload_environment import facts_of_attempt, merge
from DmpWorkflow.core.variables import expand, resolve

# The original's class, which its clients decode an entry to; we only ever write this word.
LEGACY_MARKER = "DmpWorkflow.core.DmpJob.DmpJob"


@dataclass(frozen=True)
class ResolvedJob:
    """A job's definition for some instances, with everything resolved that the server can resolve."""

    job: Document
    definition: JobDefinition

    def to_document(self) -> Document:
        """Return it as it travels."""
        definition = self.definition
        return {
            "job_id": str(self.job["_id"]),
            "slug": self.job["slug"],
            "title": self.job["title"],
            "type": self.job["type"],
            "release": self.job["release"],
            "site": self.job["execution_site"],
            "attributes": _attributes(self.job),
            "executable": definition.executable,
            "script": definition.script,
            "input_files": [vars(file) for file in definition.input_files],
            "output_files": [vars(file) for file in definition.output_files],
            "variables": [vars(variable) for variable in definition.variables],
        }

    def as_payload_sees(self, number: int, stored: bool) -> Document:
        """Return executable, files and variables as the payload of an instance gets them, its first attempt.

        What only the site knows stays a reference, and so does the id of a job that is not ``stored`` yet.
        """
        job, definition = self.job, self.definition
        facts = facts_of_attempt(str(job["_id"]), number, 1, job["title"], job["type"], job["release"])
        if not stored:
            del facts["DWF_JOB_ID"]
        automatic = _attributes(job) | facts
        environment = merge({}, _attributes(job), facts, definition.variables)
        return {
            "executable": expand(definition.executable, environment),
            "input_files": [vars(file) for file in _expand_files(definition.input_files, environment)],
            "output_files": [vars(file) for file in _expand_files(definition.output_files, environment)],
            "variables": _named({variable.name: environment[variable.name] for variable in definition.variables}),
            "automatic": _named({name: environment[name] for name in automatic}),
        }


def _named(values: Mapping[str, str]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def claim_work(database: Database, request: ClaimRequest, secret: bytes) -> Document:
    """Claim instances and return ``definitions`` and ``instances``; a definition travels once for all that use it."""
    claimed = claims.claim(database, request)
    resolver = Resolver(database, [instance["job"] for instance in claimed])
    keys: dict[tuple[ObjectId, str], str] = {}
    instances = []
    for instance in claimed:
        key = keys.setdefault((instance["job"], instance["body"]), str(len(keys)))
        instances.append(_travelling(instance, key, secret))
    definitions = {key: resolver.resolve(job, body).to_document() for (job, body), key in keys.items()}
    return {"definitions": definitions, "instances": instances}


def _travelling(instance: Document, key: str, secret: bytes) -> Document:
    job, number, attempt = str(instance["job"]), instance["instanceId"], instance["attempt"]
    expires = instance["claim"].get("expires")
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
    resolver = Resolver(database, [instance["job"] for instance in claimed])
    resolved: dict[tuple[ObjectId, str], ResolvedJob] = {}
    entries = []
    for instance in claimed:
        key = (instance["job"], instance["body"])
        if key not in resolved:
            resolved[key] = resolver.resolve(*key)
        entries.append(_legacy_entry(resolved[key], instance["instanceId"], batch_defaults, folder))
    return entries


def _legacy_entry(resolved: ResolvedJob, number: int, batch_defaults: Mapping[str, str], folder: str) -> str:
    job, definition = resolved.job, resolved.definition
    entry: dict[str, Any] = _attributes(job) | {
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


def _attributes(job: Document) -> dict[str, Any]:
    given = {"release": job["release"], "type": job["type"], "name": job["title"], "site": job["execution_site"]}
    return {name: value for name, value in given.items() if value} | {"priority": str(job["priority"])}


def iso(time: datetime) -> str:
    """Return an aware UTC time as ISO 8601 text with a Z."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Resolver:
    """Resolves definitions of some jobs, reading each job and each of its ancestors once.

    ``unsaved`` is a job as it would be stored.
    """

    def __init__(self, database: Database, jobs: Sequence[ObjectId], unsaved: Document | None = None) -> None:
        self._jobs: dict[ObjectId, Document] = {unsaved["_id"]: unsaved} if unsaved else {}
        wanted = {*jobs, *(unsaved["dependencies"] if unsaved else ())}
        while missing := wanted - set(self._jobs):
            self._jobs |= {job["_id"]: job for job in database.jobs.find({"_id": {"$in": list(missing)}})}
            wanted = {parent for job in missing & set(self._jobs) for parent in self._jobs[job]["dependencies"]}
        self._definitions: dict[ObjectId, JobDefinition] = {}

    def resolve(self, job: ObjectId, body: str = "") -> ResolvedJob:
        """Return the job as an instance with the overrides ``body`` sees it."""
        definition, overrides = self._definition(job), from_json(body)
        variables = resolve([*self._inherited(job), definition.variables, overrides.variables])
        inputs = (*self._parents_outputs(job), *definition.input_files, *overrides.input_files)
        outputs = (*definition.output_files, *overrides.output_files)
        values = {"DWF_JOBNAME": self._jobs[job]["title"]} | {item.name: item.value for item in variables}
        return ResolvedJob(
            self._jobs[job],
            replace(
                definition,
                variables=variables,
                input_files=_expand_files(inputs, values),
                output_files=_expand_files(outputs, values),
            ),
        )

    def _definition(self, job: ObjectId) -> JobDefinition:
        if job not in self._definitions:
            self._definitions[job] = parse_jobs(self._jobs[job]["body"].encode())[0][0]
        return self._definitions[job]

    def _parents(self, job: ObjectId) -> list[ObjectId]:
        return [parent for parent in self._jobs[job]["dependencies"] if parent in self._jobs]

    def _inherited(self, job: ObjectId) -> list[Sequence[Variable]]:
        """Return the variables of all ancestors, the farthest first, since what is nearer wins."""
        layers: list[Sequence[Variable]] = []
        for parent in self._parents(job):
            layers += [*self._inherited(parent), self._definition(parent).variables]
        return layers

    def _parents_outputs(self, job: ObjectId) -> list[File]:
        """Return the parents' output files as input files: a target becomes a source."""
        return [
            File(source=file.target, target=file.target.rsplit("/", 1)[-1], file_type=file.file_type)
            for parent in self._parents(job)
            for file in self.resolve(parent).definition.output_files
        ]


def _expand_files(files: Sequence[File], values: Mapping[str, str]) -> tuple[File, ...]:
    return tuple(
        File(source=expand(file.source, values), target=expand(file.target, values), file_type=file.file_type)
        for file in files
    )


def overrides_of(instance: Document) -> Overrides:
    """Return what an instance has of its own."""
    return from_json(instance.get("body", ""))
