"""Submission: from a file of XML to jobs with instances."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core import retries
from DmpWorkflow.core.batch_needs import BatchNeeds, apply_overrides
from DmpWorkflow.core.database import audit, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation import MOST_AT_ONCE, allot, complete_creations
from DmpWorkflow.core.database.creation_requests import CreationRequest, create_once
from DmpWorkflow.core.database.resolution import Resolver
from DmpWorkflow.core.job_definition import JobDefinition
from DmpWorkflow.core.job_xml import InvalidJobDefinition, Problem, parse_jobs, serialise_jobs
from DmpWorkflow.core.names import check_release, check_title
from DmpWorkflow.core.overrides import Overrides
from DmpWorkflow.core.variables import expand, resolve
from DmpWorkflow.utils.errors import AccessDenied, Conflict, DmpWorkflowError, InvalidInput, NotFound
from DmpWorkflow.utils.units import parse_clock

MOST_PARENTS = 100
DEFAULT_TYPE = "Other"
DEFAULT_SITE = "local"
NO_OVERRIDES = Overrides()


@dataclass(frozen=True)
class Submission:
    """What a physicist hands in; empty texts leave it to the XML. ``own_only`` as for jobs.NewJob."""

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
    own_only: bool = False


@dataclass(frozen=True)
class Words:
    """The types and sites that the server knows."""

    types: tuple[str, ...]
    sites: tuple[str, ...]


@dataclass
class Check:
    """What a submission would make, with a preview of each job, or every problem that hinders it."""

    new: list[jobs.NewJob] = field(default_factory=list)
    previews: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[DmpWorkflowError] = field(default_factory=list)

    @contextmanager
    def noting(self, line: int | None = None) -> Iterator[None]:
        """Note what is refused in this block, instead of raising it."""
        try:
            yield
        except (InvalidInput, NotFound, Conflict, AccessDenied) as error:
            self.errors.append(error)
            self.problems += (
                error.problems if isinstance(error, InvalidJobDefinition) else [Problem(str(error), line)]
            )

    def raise_problems(self) -> None:
        """Raise the only error as it is, and several as one InvalidInput."""
        if len(self.errors) > 1:
            raise InvalidInput("; ".join(map(str, self.problems)))
        if self.errors:
            raise self.errors[0]


def submit_xml(
    database: Database, submission: Submission, words: Words, request: CreationRequest | None = None
) -> tuple[list[Document], list[str]]:
    """Make the jobs of one file, with instances; return a row for each job, and warnings.

    All jobs are made or none. Raises InvalidInput, NotFound (a parent), Conflict, or AccessDenied (a job of that name
    belongs to somebody else). A ``request`` that is repeated makes nothing and returns the same.
    """
    return _make_once(database, request, lambda session: _make(database, submission, words, session))


def _make_once(
    database: Database, request: CreationRequest | None, make: Callable[[ClientSession], Document]
) -> tuple[list[Document], list[str]]:
    made = create_once(database, request, make)
    for row in made["jobs"]:
        complete_creations(database, ObjectId(row["jobID"]))
    return made["jobs"], made["warnings"]


def _make(database: Database, submission: Submission, words: Words, session: ClientSession) -> Document:
    checked = check_xml(database, submission, words)
    checked.raise_problems()
    body = submission.overrides.to_json()
    rows = []
    for new in checked.new:
        job = jobs.make(database, new, submission.replace, session)
        rows.append(_row(job, allot(database, job["_id"], submission.instances, body, None, session)))
    return {"jobs": rows, "warnings": checked.warnings}


def check_xml(database: Database, submission: Submission, words: Words) -> Check:
    """Return what ``submit_xml`` would make, or all that hinders it; nothing is made."""
    check = Check()
    parents: list[Document] = []
    with check.noting():
        parents = _parents(database, submission.parents, check)
    with check.noting():
        definitions, warnings = parse_jobs(submission.xml)
        check.warnings += warnings
        if len(definitions) > 1 and submission.title:
            raise InvalidInput(f"a name was given for a file of {len(definitions)} jobs: name each <Job> in the file")
        if (wanted := len(definitions) * submission.instances) > MOST_AT_ONCE:
            raise InvalidInput(f"n_instances: {wanted} of all jobs in the file, at most {MOST_AT_ONCE} at once")
        for definition in definitions:
            _check_job(database, definition, submission, parents, words, check)
    check.problems.sort(key=lambda problem: problem.line or 0)
    return check


def _parents(database: Database, slugs: Sequence[str], check: Check) -> list[Document]:
    found = []
    if len(slugs) > MOST_PARENTS:
        raise InvalidInput(f"depends: {len(slugs)} parents, at most {MOST_PARENTS}")
    for slug in dict.fromkeys(slugs):
        with check.noting():
            found.append(jobs.by_slug(database, slug))
    return found


def _check_job(
    database: Database,
    definition: JobDefinition,
    submission: Submission,
    parents: Sequence[Document],
    words: Words,
    check: Check,
) -> None:
    before = len(check.errors)
    new = _new_job(definition, submission, parents, words, check)
    if new is None or len(check.errors) > before:
        return
    with check.noting(definition.line):
        preview = _preview(database, new, submission, parents)
        check.warnings += _warnings(preview, parents, submission)
        check.previews.append(preview)
        check.new.append(new)


def clone(
    database: Database,
    original: Document,
    title: str,
    instances: int,
    owner: str,
    words: Words,
    request: CreationRequest | None = None,
) -> tuple[list[Document], list[str]]:
    """Make a job of the name ``title`` from the XML, the priority and the parents of another one, as submit_xml does.

    Raises Conflict if there is one of that name, type and site.
    """
    key = {"title": title, "type": original["type"], "execution_site": original["execution_site"]}
    parents = database.jobs.find({"_id": {"$in": original["dependencies"]}}, {"slug": 1})
    submission = Submission(
        xml=original["body"].encode(),
        title=title,
        instances=instances,
        parents=tuple(parent["slug"] for parent in parents),
        priority=original["priority"],
        owner=owner,
        own_only=True,  # somebody else may make one of that name meanwhile
    )
    after = {"title": title, "instances": instances}

    def make(session: ClientSession) -> Document:
        if database.jobs.find_one(key, {"_id": 1}, session=session):
            raise Conflict(f"there is a job {title!r} (type {original['type']}) already: choose another name")
        audit.note(database, "job.clone", f"job/{original['slug']}", after=after, session=session)
        return _make(database, submission, words, session)

    return _make_once(database, request, make)


def _new_job(
    definition: JobDefinition, submission: Submission, parents: Sequence[Document], words: Words, check: Check
) -> jobs.NewJob | None:
    with check.noting(definition.line):
        values = {variable.name: variable.value for variable in resolve([definition.variables])}
        title = submission.title or expand(definition.name, values)
        job_type = submission.type or expand(definition.type, values) or DEFAULT_TYPE
        site = submission.site or expand(definition.site, values) or DEFAULT_SITE
        release = expand(definition.release, values)
        with check.noting(definition.line):
            check_title(title)
        with check.noting(definition.line):
            check_release(release)
        with check.noting(definition.line):
            _check_word("type", job_type, words.types)
        with check.noting(definition.line):
            _check_word("site", site, words.sites)
        return jobs.NewJob(
            title=title,
            type=job_type,
            site=site,
            body=serialise_jobs([replace(definition, name=title, type=job_type, site=site)]).decode(),
            release=release,
            priority=definition.priority if submission.priority is None else submission.priority,
            dependencies=tuple(parent["_id"] for parent in parents),
            owner=submission.owner,
            own_only=submission.own_only,
            retries=definition.retries,
            retry_on=tuple(retries.words_of(definition.retry_on)),
            lost_after=parse_clock(definition.lost_after) if definition.lost_after else None,
        )
    return None


def _preview(database: Database, new: jobs.NewJob, submission: Submission, parents: Sequence[Document]) -> Document:
    """Return the job as the payload of its first new instance would see it."""
    stored = jobs.existing(database, new, submission.replace)
    job = jobs.new_document(new) if stored is None else stored | jobs.definition_of(new)
    resolved = Resolver(database, [], job).resolve(job["_id"], submission.overrides.to_json())
    first = job["allotted"] + 1
    return {
        "title": new.title,
        "type": new.type,
        "site": new.site,
        "release": new.release,
        "priority": new.priority,
        "slug": stored["slug"] if stored else None,
        "parents": [{"slug": parent["slug"], "title": parent["title"]} for parent in parents],
        "instances": submission.instances,
        "first": first,
        **resolved.as_payload_sees(first, stored is not None),
    }


def _warnings(preview: Document, parents: Sequence[Document], submission: Submission) -> Iterator[str]:
    title, last = preview["title"], preview["first"] + submission.instances - 1
    if preview["slug"] and submission.instances:
        yield f"job {title} is there already: these become its instances {preview['first']} to {last}"
    if not submission.instances:
        yield f"job {title} gets no instances now: nothing runs until some are added"
    for parent in parents:
        if parent["allotted"] < last:
            yield f"parent {parent['title']} has {parent['allotted']} instances: those above that wait for more of it"
    values = {variable["name"]: variable["value"] for variable in preview["variables"]}
    try:
        yield from apply_overrides(BatchNeeds(memory_mb=0, cpu_seconds=0), values)[1]
    except InvalidInput as error:
        yield f"the site's batch system may refuse job {title}: {error}"


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
