"""Definitions of jobs with all resolved that the server can resolve: variables, inheritance, files of parents."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.core.job_xml import InvalidJobDefinition, parse_jobs
from DmpWorkflow.core.overrides import Overrides, from_json
from DmpWorkflow.core.payload_environment import facts_of_attempt, merge
from DmpWorkflow.core.variables import expand, resolve
from DmpWorkflow.utils.errors import InvalidInput


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
            "attributes": attributes_of(self.job),
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
        automatic = attributes_of(job) | facts
        environment = merge({}, attributes_of(job), facts, definition.variables)
        return {
            "executable": expand(definition.executable, environment),
            "input_files": [vars(file) for file in _expand_files(definition.input_files, environment)],
            "output_files": [vars(file) for file in _expand_files(definition.output_files, environment)],
            "variables": _named({variable.name: environment[variable.name] for variable in definition.variables}),
            "automatic": _named({name: environment[name] for name in automatic}),
        }


def _named(values: Mapping[str, str]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def attributes_of(job: Document) -> dict[str, Any]:
    """Return the attributes of a job's XML that a payload sees."""
    given = {"release": job["release"], "type": job["type"], "name": job["title"], "site": job["execution_site"]}
    return {name: value for name, value in given.items() if value} | {"priority": str(job["priority"])}


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
