"""Jobs: made, found, and made again with the same or another definition."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import audit, clock, counts
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation_requests import create_once
from DmpWorkflow.core.lifecycle import ACTIVE
from DmpWorkflow.utils.errors import AccessDenied, Conflict, NotFound

SLUG_BYTES = 6


@dataclass(frozen=True)
class NewJob:
    """A job as ``owner`` submits it; ``body`` is its XML in the canonical form, ``dependencies`` its parents.

    ``own_only`` keeps the owner from a job of that name that belongs to somebody else.
    """

    title: str
    type: str
    site: str
    body: str
    release: str = ""
    priority: int = 0
    dependencies: tuple[ObjectId, ...] = ()
    owner: str = ""
    own_only: bool = False
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    lost_after: int | None = None

    @property
    def key(self) -> Document:
        """What names a job among all jobs."""
        return {"title": self.title, "type": self.type, "execution_site": self.site}

    @property
    def digest(self) -> str:
        """What two submissions of the same definition have in common."""
        parents = ",".join(sorted(map(str, self.dependencies)))
        parts = (self.body, self.release, str(self.priority), parents)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def submit(database: Database, new: NewJob, replace: bool = False) -> Document:
    """Make the job, or return the one of the same name, type and site if its definition is the same.

    Another definition raises Conflict, unless ``replace`` is given and no instance is active or claimed. One of
    somebody else raises AccessDenied if the owner may change no other jobs.
    """
    return create_once(database, None, lambda session: make(database, new, replace, session))


def make(database: Database, new: NewJob, replace: bool, session: ClientSession) -> Document:
    """Do what ``submit`` does within the transaction of ``session``."""
    found = existing(database, new, replace, session)
    if found is None:
        return _insert(database, new, session)
    return found if found["digest"] == new.digest else _replace(database, new, found, session)


def existing(
    database: Database, new: NewJob, replace: bool = False, session: ClientSession | None = None
) -> Document | None:
    """Return the job of this name, type and site, if there is one.

    Another definition raises Conflict unless ``replace`` is given, and another owner AccessDenied if that matters.
    """
    found = database.jobs.find_one(new.key, session=session)
    if found is not None and new.own_only:
        check_owner(found, new.owner)
    if found is not None and found["digest"] != new.digest and not replace:
        raise Conflict(
            f"job {new.title!r} (type {new.type}, site {new.site}) exists with another definition: "
            "choose another name, or replace it (--replace) while no instance is active"
        )
    return found


def _hold_parents(database: Database, new: NewJob, session: ClientSession) -> None:
    for parent in new.dependencies:
        counts.lock(database, parent, session)  # against its removal at the same time
        if not database.jobs.find_one({"_id": parent, "removing": {"$ne": True}}, {"_id": 1}, session=session):
            raise Conflict(f"job {new.title!r} cannot depend on {parent}, which is being removed")


def definition_of(new: NewJob) -> Document:
    """Return the part of a job that another submission of it may replace."""
    return {
        "body": new.body,
        "digest": new.digest,
        "release": new.release,
        "priority": new.priority,
        "dependencies": list(new.dependencies),
        "retries": new.retries,
        "retry_on": list(new.retry_on),
        "lost_after": new.lost_after,
    }


def new_document(new: NewJob) -> Document:
    """Return the job as it would be stored."""
    return {
        "_id": ObjectId(),
        "_cls": "Job",
        "slug": secrets.token_hex(SLUG_BYTES),
        "created_at": clock.now(),
        "allotted": 0,  # the highest instance number given away
        "creations": [],  # numbers given away whose instances are not all stored yet
        "owner": new.owner,
        "tags": [],
        "archived": False,
        **new.key,
        **definition_of(new),
    }


def _insert(database: Database, new: NewJob, session: ClientSession) -> Document:
    _hold_parents(database, new, session)
    job = new_document(new)
    database.jobs.insert_one(job, session=session)
    audit.note(database, "job.submit", f"job/{job['slug']}", after=_for_audit(job), session=session)
    counts.create(database, job["_id"], new.site, session)
    return job


def _replace(database: Database, new: NewJob, found: Document, session: ClientSession) -> Document:
    counts.lock(database, found["_id"], session)  # no status changes while we look
    if active := database.instances.find_one(busy(found["_id"]), {"instanceId": 1, "status": 1}, session=session):
        raise Conflict(
            f"job {new.title!r} cannot be replaced: instance {active['instanceId']} is {active['status']} or claimed"
        )
    if found["dependencies"] != list(new.dependencies) and found["allotted"]:
        raise Conflict(f"job {new.title!r} has instances: its parents cannot be replaced")
    _hold_parents(database, new, session)
    definition = definition_of(new)
    database.jobs.update_one({"_id": found["_id"]}, {"$set": definition}, session=session)
    database.instances.update_many({"job": found["_id"]}, {"$set": {"priority": new.priority}}, session=session)
    before, after = audit.changed(_for_audit(found), _for_audit(found | definition))
    audit.note(database, "job.replace", f"job/{found['slug']}", before, after, session=session)
    return found | definition


def _for_audit(job: Document) -> Document:
    """Return what the log tells of a job; its XML by the digest."""
    definition = {name: job[name] for name in ("release", "priority", "dependencies")}
    return audit.about_job(job) | definition | {"digest": job["digest"][:16]}


def busy(job: ObjectId) -> Document:
    """Return a query for the instances of ``job`` that an agent has, or is about to take."""
    leased = {"claim": {"$exists": True}, "waits_until": {"$exists": True}}  # the latter has an index
    return {"job": job, "$or": [{"status": {"$in": sorted(ACTIVE)}}, leased]}


def check_open(database: Database, job: ObjectId, session: ClientSession | None = None) -> Document:
    """Return slug and paused of the job; raises NotFound.

    Raises Conflict if it is archived or being removed, so that no instance of it may become New.
    """
    fields = {"title": 1, "slug": 1, "paused": 1, "archived": 1, "removing": 1}
    found = _required(database.jobs.find_one({"_id": job}, fields, session=session), str(job))
    if found.get("removing"):
        raise Conflict(f"job {found['title']!r} is being removed")
    if found.get("archived"):
        raise Conflict(f"job {found['title']!r} is archived: take it out of the archive first")
    return found


def by_id(database: Database, job: ObjectId) -> Document:
    """Return the job; raises NotFound."""
    return _required(database.jobs.find_one({"_id": job}), str(job))


def by_slug(database: Database, slug: str) -> Document:
    """Return the job; raises NotFound."""
    return _required(database.jobs.find_one({"slug": slug}), slug)


def by_name(database: Database, title: str, job_type: str = "", site: str = "") -> Document:
    """Return the one job of that title (and type and site, if given).

    Raises NotFound where there is none and Conflict where there are several.
    """
    key = {"title": title, "type": job_type, "execution_site": site}
    found: Sequence[Document] = list(
        database.jobs.find({name: value for name, value in key.items() if value}).limit(2)
    )
    if len(found) > 1:
        raise Conflict(f"there are several jobs {title}: name the type and the site as well")
    return _required(found[0] if found else None, title)


def owner_of(job: Document) -> str:
    """Return whose job it is; an empty text for nobody's, as jobs are that somebody made without a credential."""
    owner: str = job.get("owner", "")
    return owner


def check_owner(job: Document, owner: str) -> None:
    """Raise AccessDenied, with the owner's name, if the job belongs to somebody else."""
    if owner_of(job) != owner:
        raise AccessDenied(
            f"job {job['title']!r} belongs to {owner_of(job) or 'nobody'}: its owner, operators and administrators "
            "may change it"
        )


def with_owners(database: Database, jobs: set[ObjectId]) -> dict[ObjectId, Document]:
    """Return title and owner of each of these jobs that there is."""
    found = database.jobs.find({"_id": {"$in": list(jobs)}}, {"title": 1, "owner": 1}) if jobs else ()
    return {job["_id"]: job for job in found}


def _required(job: Document | None, name: str) -> Document:
    if job is None:
        raise NotFound(f"Could not find job {name}")
    return job
