"""What must hold in a database, whatever happened: each invariant is verified live, and named if it is broken.

What concerns one document is one query; what concerns several is read in one snapshot, job by job and part by part.
A repair touches only what follows from other fields, guarded by the very query that found it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import children, cleaning, counts
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation import complete_creations
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.lifecycle import ACTIVE, FINAL, MajorStatus
from DmpWorkflow.utils.text import numbered

MOST_NAMED = 5  # examples of one invariant
PART = 2000  # instances of which parents are looked at together

NEW = str(MajorStatus.NEW)
STATUSES, ACTIVE_WORDS = sorted(MajorStatus), sorted(ACTIVE)
BAD_ENDS = sorted(FINAL - {MajorStatus.DONE})


@dataclass(frozen=True)
class Invariant:
    """What must hold of every instance: ``broken`` finds those of which it does not, ``repair`` is an update."""

    text: str
    broken: Document
    repair: list[Document] | None = None


WAITS = {"waits_until": {"$exists": True}}
BLOCKED = [WAITS, {"waiting_for.0": {"$exists": True}}, {"paused": True}]
RECOMPUTE: list[Document] = [{"$set": {"claimable": children.IS_READY}}]

INVARIANTS: Mapping[str, Invariant] = {
    "status": Invariant("has a status that there is", {"status": {"$nin": STATUSES}}),
    "attempt": Invariant(
        "counts its attempts, and has had one if it is active",
        {
            "$or": [
                {"attempt": {"$not": {"$gte": 0}}},
                {"status": {"$in": ACTIVE_WORDS}, "attempt": {"$lt": 1}},
                {"status": {"$in": ACTIVE_WORDS}, "handed_out": {"$ne": True}},
            ]
        },
    ),
    "claimable": Invariant(
        "can be claimed only if it is New, not claimed, waits for no parent and is not paused",
        {"claimable": True, "$or": [{"status": {"$ne": NEW}}, *BLOCKED]},
        RECOMPUTE,
    ),
    "forgotten": Invariant(
        "can be claimed if it is New and nothing hinders it",
        {"status": NEW, "claimable": {"$ne": True}, "$nor": BLOCKED},
        RECOMPUTE,
    ),
    "active": Invariant(
        "is marked as active exactly if its status is",
        {
            "$or": [
                {"status": {"$in": ACTIVE_WORDS}, "active": {"$ne": True}},
                {"status": {"$nin": ACTIVE_WORDS}, "active": True},
            ]
        },
        [{"$set": {"active": {"$in": ["$status", ACTIVE_WORDS]}}}],
    ),
    "reason": Invariant(
        "says why it ended without success",
        {"status": {"$in": BAD_ENDS}, "minor_status": {"$in": [None, ""]}},
        [{"$set": {"minor_status": "ReasonUnknown"}}],
    ),
    "lease": Invariant(
        "is claimed while it is New only if it is handed out, and for a limited time",
        {
            "status": NEW,
            "claim": {"$exists": True},
            "$or": [{"waits_until": {"$exists": False}}, {"handed_out": {"$ne": True}}],
        },
        [{"$unset": ["claim", "waits_until"]}, *RECOMPUTE],
    ),
    "contact": Invariant(
        "is known to have been heard of, if it is active",
        {"active": True, "last_contact": None},
        [{"$set": {"last_contact": "$last_update"}}],
    ),
    "wait": Invariant(
        "waits for some time only while it is New",
        WAITS | {"status": {"$ne": NEW}},
        [{"$unset": "waits_until"}],
    ),
}  # fmt: skip


@dataclass
class Checked:
    """What was found: for each invariant that does not hold, what it says and where, and whether it does now."""

    jobs: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    repaired: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether all holds now."""
        return not self.broken

    def note(self, name: str, text: str, where: Sequence[str], repaired: bool) -> None:
        """Note an invariant that did not hold; nothing, if it holds everywhere."""
        if not where:
            return
        more = " and more" if len(where) > MOST_NAMED else ""
        told = f"{text}: {', '.join(where[:MOST_NAMED])}{more}"
        found = self.repaired if repaired else self.broken
        found[name] = f"{found[name]}; {told}" if name in found else told

    def in_words(self) -> str:
        """Return all of it as one line."""
        parts = [f"BROKEN {name}: {told}" for name, told in self.broken.items()]
        parts += [f"repaired {name}: {told}" for name, told in self.repaired.items()]
        return "; ".join(parts) or f"all that must hold does, in {numbered(self.jobs, 'job')}"


def check(database: Database, repair: bool = False) -> Checked:
    """Verify everything, and ``repair`` what is safe to; return what did not hold."""
    checked = Checked(jobs=database.jobs.count_documents({}))
    _check_indexes(database, checked, repair)
    _check_fields(database, checked)
    _check_instances(database, checked, repair)
    _check_orphans(database, checked)
    for job in database.jobs.find({}, {"title": 1, "slug": 1}, sort=[("_id", 1)]):
        _check_job(database, job["_id"], f"job {job['title']} ({job['slug']})", checked, repair)
    return checked


def _check_indexes(database: Database, checked: Checked, repair: bool) -> None:
    missing = list(_missing_indexes(database))
    twice = [str(ids[0]) for ids in cleaning.duplicates(database.instances, cleaning.INSTANCE_KEY)]
    twice += [str(ids[0]) for ids in cleaning.duplicates(database.files, cleaning.FILE_KEY)]
    checked.note("unique", "is there twice (remove-duplicates)", twice, False)
    if missing and repair and not twice:
        database.prepare()
    checked.note("index", "is missing", missing, repair and not twice)


def _missing_indexes(database: Database) -> Iterator[str]:
    for document in DOCUMENTS:
        collection = database.jobs.database[document._meta["collection"]]
        there = [(list(index["key"]), bool(index.get("unique"))) for index in collection.index_information().values()]
        for spec in document._meta["index_specs"]:
            if (list(spec["fields"]), bool(spec.get("unique"))) not in there:
                yield f"{collection.name} {'+'.join(name for name, _ in spec['fields'])}"


def _check_fields(database: Database, checked: Checked) -> None:
    """Every document has the fields without which nothing works."""
    for document in DOCUMENTS:
        collection = database.jobs.database[document._meta["collection"]]
        names = [one.db_field for one in document._fields.values() if one.required and not one.primary_key]
        query = {"$or": [{name: None} for name in names]}
        found = [str(one["_id"]) for one in collection.find(query, {"_id": 1}, limit=MOST_NAMED + 1)] if names else []
        checked.note("fields", f"lacks a field that a {document.__name__} needs", found, False)


def _check_instances(database: Database, checked: Checked, repair: bool) -> None:
    closed = [job["_id"] for job in database.jobs.find({"removing": True}, {"_id": 1})]
    paused = [job["_id"] for job in database.jobs.find({"paused": {"$gt": ""}}, {"_id": 1})]
    of_pauses = Invariant(
        "is paused exactly as its job is",
        {
            "$or": [
                {"status": NEW, "paused": True, "job": {"$nin": paused}},
                {"claimable": True, "job": {"$in": paused}},
            ]
        },
        [{"$set": {"paused": {"$in": ["$job", paused]}}}, *RECOMPUTE],
    )
    for name, invariant in {**INVARIANTS, "paused": of_pauses}.items():
        query = invariant.broken | ({"job": {"$nin": closed}} if name == "forgotten" else {})
        fields = {"job": 1, "instanceId": 1}
        found = list(database.instances.find(query, fields, limit=MOST_NAMED + 1))
        if found and repair and invariant.repair:
            database.instances.update_many(query, invariant.repair)
        where = [f"{one.get('job')}/{one.get('instanceId')}" for one in found]
        checked.note(name, f"not every instance {invariant.text}", where, repair and bool(invariant.repair))


def _check_orphans(database: Database, checked: Checked) -> None:
    for collection in (database.instances, database.counts):
        gone = [str(job) for job in cleaning.orphaned_jobs(database, collection)]
        checked.note(
            "orphans", f"{collection.name} has something of jobs that are gone (remove-orphans)", gone, False
        )


def _check_job(database: Database, job: ObjectId, name: str, checked: Checked, repair: bool) -> None:
    found = database.transaction(partial(_counted, database, job, repair))
    if found is None:
        return  # it was removed meanwhile
    stored, wrong, number = found
    told = [f"{name} {status} {difference:+d}" for status, difference in wrong.items()]
    checked.note("counts", "counters are not as a fresh count", told, repair)
    pending = sum(note["last"] - note["next"] + 1 for note in stored["creations"])
    if number + pending != stored["allotted"]:
        told = [f"{name} has {number}, {pending} to come, {stored['allotted']} numbers given away"]
        checked.note("numbers", "instances are missing or too many", told, False)
    _check_bounds(database, stored, name, checked)
    _check_creations(database, stored, name, checked, repair)
    for parent in stored["dependencies"]:
        _check_parent(database, stored, parent, name, checked, repair)


def _counted(
    database: Database, job: ObjectId, repair: bool, session: ClientSession
) -> tuple[Document, counts.Counts, int] | None:
    """Return the job, what its counters lack, and how many instances it has; nobody changes them meanwhile."""
    fields = {"allotted": 1, "creations": 1, "dependencies": 1, "execution_site": 1, "removing": 1}
    stored = database.jobs.find_one({"_id": job}, fields, session=session)
    if stored is None or stored.get("removing"):
        return None
    known = {"job": job, "status": {"$in": STATUSES}}
    if database.instances.find_one({"job": job, "status": {"$nin": STATUSES}}, {"_id": 1}, session=session):
        return stored, {}, stored["allotted"]  # named before; such a job cannot be counted
    wrong = counts.compare(database, job, stored["execution_site"], repair, session)
    return stored, wrong, database.instances.count_documents(known, session=session)


def _check_bounds(database: Database, job: Document, name: str, checked: Checked) -> None:
    outside = {"job": job["_id"], "$or": [{"instanceId": {"$gt": job["allotted"]}}, {"instanceId": {"$lt": 1}}]}
    now = database.jobs.find_one({"_id": job["_id"]}, {"allotted": 1}) or job
    found = database.instances.find_one(outside, {"instanceId": 1})
    if found and not 1 <= found["instanceId"] <= now["allotted"]:
        checked.note("bounds", "a number was never given away", [f"{name} {found['instanceId']}"], False)
    other = database.instances.find_one(
        {"job": job["_id"], "site": {"$ne": job["execution_site"]}}, {"instanceId": 1}
    )
    if other:
        checked.note("site", "an instance is at another site than its job", [f"{name} {other['instanceId']}"], False)


def _check_creations(database: Database, job: Document, name: str, checked: Checked, repair: bool) -> None:
    """Numbers that were given away get their instances; a request that died leaves them to the next one."""
    if not job["creations"]:
        return
    if repair:
        complete_creations(database, job["_id"])
    checked.note("creations", "instances are still to be created (by a request that runs, or died)", [name], repair)


def _check_parent(
    database: Database, job: Document, parent: ObjectId, name: str, checked: Checked, repair: bool
) -> None:
    if not database.jobs.find_one({"_id": parent}, {"_id": 1}):
        checked.note("parents", "a parent is gone", [f"{name}: {parent}"], False)
        return
    for first in range(1, job["allotted"] + 1, PART):
        numbers = range(first, min(first + PART, job["allotted"] + 1))
        wrong = database.transaction(partial(_wrong_waiting, database, job["_id"], parent, numbers, repair))
        told = [f"{name} {number}" for number in sorted(wrong)]
        checked.note("children", "an instance does not wait for its parent as it must", told, repair)


def _wrong_waiting(
    database: Database, job: ObjectId, parent: ObjectId, numbers: range, repair: bool, session: ClientSession
) -> set[int]:
    """Return the numbers that wait though their parent is Done, or do not wait though it is not."""
    if repair:
        counts.lock(database, parent, session)

    def chosen(query: Document) -> set[int]:
        bounds = {"instanceId": {"$gte": numbers[0], "$lte": numbers[-1]}}
        found: Iterable[Any] = database.instances.find(query | bounds, {"instanceId": 1}, session=session)
        return {one["instanceId"] for one in found}

    done = chosen({"job": parent, "status": str(MajorStatus.DONE)})
    waiting = chosen({"job": job, "waiting_for": parent})
    free = chosen({"job": job, "waiting_for": {"$ne": parent}, "status": NEW, "claimable": True})
    stuck, early = waiting & done, free - done
    if repair and stuck:
        children.release(database, parent, sorted(stuck), session)
    if repair and early:
        children.hold_back(database, parent, sorted(early), session)
    return stuck | early
