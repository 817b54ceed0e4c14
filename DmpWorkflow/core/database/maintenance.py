"""Maintenance: actions that put right what faults left behind, each with its last result in the database."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from DmpWorkflow.core.database import audit, claims, clock, counts
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.counts import Counts
from DmpWorkflow.core.database.work import iso
from DmpWorkflow.utils.errors import InvalidInput

MOST_NAMED = 20  # jobs in the text of a result


@dataclass(frozen=True)
class Action:
    """What can be done: ``text`` says what for, ``run`` does it and returns the result in words."""

    title: str
    text: str
    run: Callable[[Database], str]


def run(database: Database, name: str, by: str) -> Document:
    """Do an action for ``by`` and return its row; raises InvalidInput for a name that is none."""
    if name not in ACTIONS:
        raise InvalidInput(f"maintenance action {name!r}: expected one of {', '.join(ACTIONS)}")
    started = clock.now()
    begun = {"started": started, "ended": None, "result": "", "by": by}
    database.maintenance.replace_one({"_id": name}, begun, upsert=True)
    try:
        result = ACTIONS[name].run(database)
    except PyMongoError as error:
        _end(database, name, started, f"failed: {str(error).splitlines()[0][:200]}")
        raise
    ended = _end(database, name, started, result)
    return _row(name, begun | {"ended": ended, "result": result})


def _end(database: Database, name: str, started: datetime, result: str) -> datetime:
    ended = clock.now()
    # With its start in the filter, so that it leaves alone the result of one that began later.
    database.maintenance.update_one({"_id": name, "started": started}, {"$set": {"ended": ended, "result": result}})
    audit.note(database, "maintenance.run", f"maintenance/{name}", after={"started": iso(started), "result": result})
    return ended


def rows(database: Database) -> list[Document]:
    """Return every action with its last result; ``started`` is None for one that was never run."""
    stored = {found["_id"]: found for found in database.maintenance.find()}
    return [_row(name, stored.get(name, {})) for name in ACTIONS]


def _row(name: str, stored: Document) -> Document:
    times = {field: iso(stored[field]) if stored.get(field) else None for field in ("started", "ended")}
    words = {field: stored.get(field, "") for field in ("result", "by")}
    return {"name": name, "title": ACTIONS[name].title, "text": ACTIONS[name].text} | times | words


def _return_expired_leases(database: Database) -> str:
    number = claims.return_expired(database)
    return f"{_numbered(number, 'instance')} returned"


def compare_counts(database: Database, repair: bool = False) -> str:
    """Compare the counters of every job with a fresh count and return which differ; ``repair`` sets them right."""
    jobs = list(database.jobs.find({}, {"title": 1, "slug": 1, "execution_site": 1}))
    wrong = [(job, differences) for job in jobs if (differences := _compare(database, job, repair))]
    if not wrong:
        return f"the counts of {_numbered(len(jobs), 'job')} are exact"
    named = [f"{job['title']} ({job['slug']}): {_in_words(differences)}" for job, differences in wrong[:MOST_NAMED]]
    more = [f"and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
    verdict = "were wrong and are repaired" if repair else "are wrong"
    return f"the counts of {len(wrong)} of {_numbered(len(jobs), 'job')} {verdict}: " + "; ".join(named + more)


def _compare(database: Database, job: Document, repair: bool) -> Counts:
    """Return what the counters of a job have too little (or, below zero, too much), where that is not nothing."""
    return database.transaction(lambda session: _compare_in(database, job, repair, session))


def _compare_in(database: Database, job: Document, repair: bool, session: ClientSession) -> Counts:
    if repair:
        counts.lock(database, job["_id"], session)
    differences = _differences(database, job["_id"], session)
    if repair and differences:
        counts.complete(database, job["_id"], job["execution_site"], session)
        counts.change(database, job["_id"], differences, session)
    return differences


def _differences(database: Database, job: ObjectId, session: ClientSession) -> Counts:
    kept = counts.of_jobs(database, [job], session)[job]
    fresh = counts.afresh(database, job, session)
    return {status: fresh[status] - kept[status] for status in kept if fresh[status] != kept[status]}


def _in_words(differences: Counts) -> str:
    return ", ".join(
        f"{abs(difference)} {status} too {'few' if difference > 0 else 'many'}"
        for status, difference in differences.items()
    )


def _numbered(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


ACTIONS: Mapping[str, Action] = {
    "return-expired-leases": Action(
        "Return expired leases",
        "Makes instances claimable again whose agent did not submit them in time. Every claim does so as well.",
        _return_expired_leases,
    ),
    "compare-counts": Action(
        "Compare counts",
        "Counts the instances of every job afresh, and says which counters differ. Changes nothing.",
        compare_counts,
    ),
    "repair-counts": Action(
        "Repair counts",
        "Compares the counts, and sets right those that differ.",
        partial(compare_counts, repair=True),
    ),
}
