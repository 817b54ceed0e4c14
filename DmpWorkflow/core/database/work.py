"""What a claim takes to a site: definitions with their variables resolved, and the instances that use them."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import claims, credentials, reporting
from DmpWorkflow.core.database.claims import ClaimRequest
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.core.job_xml import InvalidJobDefinition, parse_jobs
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.overrides import Overrides, from_json
from DmpWorkflow.core.payload_environment import facts_of_attempt, merge
from DmpWorkflow.core.reports import Report
from DmpWorkflow.core.variables import expand, resolve
from DmpWorkflow.utils.errors import InvalidInput

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


def _unfit(instance: Document, problem: str) -> reporting.StatusReport:
    report = Report(MajorStatus.FAILED, instance["attempt"])
    return reporting.StatusReport(
        instance["job"], instance["instanceId"], report, {"minor_status": "InvalidDefinition", "log": problem}
    )


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
    good, resolved = _resolved(database, claimed)
    return [
        _legacy_entry(resolved[_wanted(instance)], instance["instanceId"], batch_defaults, folder)
        for instance in good
    ]


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
        self._outputs: dict[ObjectId, tuple[File, ...]] = {}

    def resolve(self, job: ObjectId, body: str = "") -> ResolvedJob:
        """Return the job as an instance with the overrides ``body`` sees it."""
        definition, overrides = self._definition(job), from_json(body)
        variables = resolve([*self._layers(job), overrides.variables])
        inputs = (*self._parents_outputs(job), *definition.input_files, *overrides.input_files)
        outputs = (*definition.output_files, *overrides.output_files)
        values = self._values(job, variables)
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

    def _values(self, job: ObjectId, variables: Sequence[Variable]) -> dict[str, str]:
        return {"DWF_JOBNAME": self._jobs[job]["title"]} | {item.name: item.value for item in variables}

    def _layers(self, job: ObjectId) -> list[Sequence[Variable]]:
        """Return the variables of all ancestors and of the job, parents before children, since what is nearer wins.

        Each ancestor counts once, however many ways lead to it. Raises InvalidInput for jobs in a circle.
        """
        order: dict[ObjectId, None] = {}
        path = [job]  # a stack of our own, since lines of ancestors may be long
        while path:
            parent = next((parent for parent in self._parents(path[-1]) if parent not in order), None)
            if parent in path:
                raise InvalidInput(f"job {self._jobs[job]['title']!r} would depend on itself through its parents")
            if parent is None:
                order[path.pop()] = None
            else:
                path.append(parent)
        return [self._definition(known).variables for known in order]

    def _parents_outputs(self, job: ObjectId) -> list[File]:
        """Return the parents' output files as input files: a target becomes a source."""
        return [
            File(source=file.target, target=file.target.rsplit("/", 1)[-1], file_type=file.file_type)
            for parent in self._parents(job)
            for file in self._outputs_of(parent)
        ]

    def _outputs_of(self, job: ObjectId) -> tuple[File, ...]:
        if job not in self._outputs:
            values = self._values(job, resolve(self._layers(job)))
            self._outputs[job] = _expand_files(self._definition(job).output_files, values)
        return self._outputs[job]


def _expand_files(files: Sequence[File], values: Mapping[str, str]) -> tuple[File, ...]:
    return tuple(
        File(source=expand(file.source, values), target=expand(file.target, values), file_type=file.file_type)
        for file in files
    )


def overrides_of(instance: Document) -> Overrides:
    """Return what an instance has of its own."""
    return from_json(instance.get("body", ""))


def check_overrides(database: Database, job: ObjectId, body: str) -> None:
    """Raise InvalidInput for overrides (JSON text) that do not fit their job: its instances could not run.

    A job whose own definition is at fault, as that of old data may be, is left to the next claim.
    """
    if database.jobs.find_one({"_id": job}, {"_id": 1}):
        with suppress(InvalidJobDefinition):
            Resolver(database, [job]).resolve(job, body)
