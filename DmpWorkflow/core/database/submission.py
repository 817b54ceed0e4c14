"""Submission: from a file of XML to jobs with instances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bson import ObjectId

from DmpWorkflow.core.database import jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation import create_instances
from DmpWorkflow.core.job_definition import JobDefinition
from DmpWorkflow.core.job_xml import parse_jobs, serialise_jobs
from DmpWorkflow.core.overrides import Overrides
from DmpWorkflow.core.variables import expand, resolve
from DmpWorkflow.utils.errors import Conflict, InvalidInput

LONGEST_TITLE = 255
DEFAULT_TYPE = "Other"
DEFAULT_SITE = "local"
NO_OVERRIDES = Overrides()


@dataclass(frozen=True)
class Submission:
    """What a physicist hands in; empty texts leave it to the XML."""

    xml: bytes
    title: str = ""
    type: str = ""
    site: str = ""
    instances: int = 0
    overrides: Overrides = NO_OVERRIDES
    parents: tuple[str, ...] = ()
    replace: bool = False
    priority: int | None = None
    owner: str = ""


@dataclass(frozen=True)
class Words:
    """The types and sites that the server knows."""

    types: tuple[str, ...]
    sites: tuple[str, ...]


def submit_xml(database: Database, submission: Submission, words: Words) -> tuple[list[Document], list[str]]:
    """Make the jobs of one file, with instances; return a row for each job, and warnings.

    Everything is checked before anything is made. Raises InvalidInput, NotFound (a parent) or Conflict.
    """
    definitions, warnings = parse_jobs(submission.xml)
    if len(definitions) > 1 and submission.title:
        raise InvalidInput(f"a name was given for a file of {len(definitions)} jobs: name each <Job> in the file")
    parents = _parents(database, submission.parents)
    new = [_new_job(definition, submission, parents, words) for definition in definitions]
    rows = []
    for job in new:
        made = jobs.submit(database, job, submission.replace)
        numbers = create_instances(database, made["_id"], submission.instances, submission.overrides.to_json())
        rows.append(_row(made, numbers))
    return rows, warnings


def clone(
    database: Database, original: Document, title: str, instances: int, owner: str, words: Words
) -> tuple[list[Document], list[str]]:
    """Make a job of the name ``title`` from the XML, the priority and the parents of another one, as submit_xml does.

    Raises Conflict if there is one of that name, type and site.
    """
    key = {"title": title, "type": original["type"], "execution_site": original["execution_site"]}
    if database.jobs.find_one(key, {"_id": 1}):
        raise Conflict(f"there is a job {title!r} (type {original['type']}) already: choose another name")
    parents = database.jobs.find({"_id": {"$in": original["dependencies"]}}, {"slug": 1})
    submission = Submission(
        xml=original["body"].encode(),
        title=title,
        instances=instances,
        parents=tuple(parent["slug"] for parent in parents),
        priority=original["priority"],
        owner=owner,
    )
    return submit_xml(database, submission, words)


def _parents(database: Database, slugs: Sequence[str]) -> tuple[ObjectId, ...]:
    return tuple(dict.fromkeys(jobs.by_slug(database, slug)["_id"] for slug in slugs))


def _new_job(
    definition: JobDefinition, submission: Submission, parents: tuple[ObjectId, ...], words: Words
) -> jobs.NewJob:
    values = {variable.name: variable.value for variable in resolve([definition.variables])}
    title = submission.title or expand(definition.name, values)
    job_type = submission.type or expand(definition.type, values) or DEFAULT_TYPE
    site = submission.site or expand(definition.site, values) or DEFAULT_SITE
    _check_title(title)
    _check_word("type", job_type, words.types)
    _check_word("site", site, words.sites)
    priority = definition.priority if submission.priority is None else submission.priority
    return jobs.NewJob(
        title=title,
        type=job_type,
        site=site,
        body=serialise_jobs([replace(definition, name=title, type=job_type, site=site)]).decode(),
        release=expand(definition.release, values),
        priority=priority,
        dependencies=parents,
        owner=submission.owner,
    )


def _check_title(title: str) -> None:
    if not title:
        raise InvalidInput("task name must be defined")
    if (
        len(title) > LONGEST_TITLE
        or title in (".", "..")
        or any(letter in "/\0" or ord(letter) < 32 for letter in title)
    ):
        raise InvalidInput(f"name {title[:40]!r}: expected 1 to {LONGEST_TITLE} printable characters without '/'")


def _check_word(field: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise InvalidInput(f"{field} {word!r} is not known: expected one of {', '.join(known)}")


def _row(job: Document, numbers: range) -> Document:
    return {
        "jobID": str(job["_id"]),
        "slug": job["slug"],
        "title": job["title"],
        "type": job["type"],
        "site": job["execution_site"],
        "first": numbers[0] if numbers else None,
        "last": numbers[-1] if numbers else None,
    }
