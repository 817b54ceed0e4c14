"""Maintenance: actions that put right what faults left behind, each with its last result in the database."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pymongo.errors import PyMongoError

from DmpWorkflow.core.database import audit, checking, claims, cleaning, clock, counts, monitoring
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.counts import Counts
from DmpWorkflow.core.database.reaper import Patience, Reaped, is_turn, reap
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.text import first_line, numbered

MOST_NAMED = 20  # jobs in the text of a result


PATIENCE = Patience()


@dataclass(frozen=True)
class Options:
    """How to do it: a ``dry_run`` says what would be done, and changes nothing."""

    dry_run: bool = False
    patience: Patience = PATIENCE


@dataclass(frozen=True)
class Action:
    """What can be done: ``text`` says what for, ``run`` does it and returns the result in words.

    ``run`` raises Wrong where it finds what must not be, and leaves it so.
    """

    title: str
    text: str
    run: Callable[[Database, Options], str]


class Wrong(Exception):
    """The result of an action that found something wrong."""


USUAL = Options()


def run(database: Database, name: str, by: str, options: Options = USUAL) -> Document:
    """Do an action for ``by`` and return its row; raises InvalidInput for a name that is none."""
    if name not in ACTIONS:
        raise InvalidInput(f"maintenance action {name!r}: expected one of {', '.join(ACTIONS)}")
    started = clock.now()
    begun = {"started": started, "ended": None, "result": "", "by": by, "dry_run": options.dry_run, "ok": True}
    database.maintenance.replace_one({"_id": name}, begun, upsert=True)
    try:
        told = {"result": ACTIONS[name].run(database, options), "ok": True}
    except Wrong as wrong:
        told = {"result": str(wrong), "ok": False}
    except PyMongoError as error:
        _end(database, name, started, {"result": f"failed: {first_line(error)}", "ok": False})
        raise
    return _row(name, begun | told | {"ended": _end(database, name, started, told)})


def _end(database: Database, name: str, started: datetime, told: Document) -> datetime:
    ended = clock.now()
    # With its start in the filter, so that it leaves alone the result of one that began later.
    database.maintenance.update_one({"_id": name, "started": started}, {"$set": told | {"ended": ended}})
    audit.note(database, "maintenance.run", f"maintenance/{name}", after={"started": iso(started)} | told)
    return ended


def rows(database: Database) -> list[Document]:
    """Return every action with its last result; ``started`` is None for one that was never run."""
    stored = {found["_id"]: found for found in database.maintenance.find()}
    return [_row(name, stored.get(name, {})) for name in ACTIONS]


def _row(name: str, stored: Document) -> Document:
    times = {field: iso(stored[field]) if stored.get(field) else None for field in ("started", "ended")}
    words = {field: stored.get(field, "") for field in ("result", "by")}
    marks = {"dry_run": stored.get("dry_run", False), "ok": stored.get("ok", True)}
    return {"name": name, "title": ACTIONS[name].title, "text": ACTIONS[name].text} | times | words | marks


def _return_expired_leases(database: Database, options: Options) -> str:
    if options.dry_run:
        return f"{numbered(claims.count_over(database), 'instance')} would be returned"
    return f"{numbered(claims.end_waits(database), 'instance')} returned"


def _compare_counts(database: Database, options: Options, repair: bool = False) -> str:
    repair = repair and not options.dry_run
    wrong, said = _counts_compared(database, repair)
    if wrong and not repair:
        raise Wrong(said)
    return said


def take_turn(database: Database, patience: Patience, by: str) -> None:
    """Reap, if nobody else has the turn; what came of it is kept if anything did."""
    if not is_turn(database):
        return
    started = clock.now()
    done = reap(database, patience)
    if done != Reaped():
        told = {"ended": clock.now(), "result": _reaped_in_words(done), "by": by, "dry_run": False, "ok": True}
        database.maintenance.replace_one({"_id": "reap"}, told | {"started": started}, upsert=True)


def _reap(database: Database, options: Options) -> str:
    return _reaped_in_words(reap(database, options.patience, options.dry_run), options.dry_run)


def _reaped_in_words(done: Reaped, dry_run: bool = False) -> str:
    would = "would be" if dry_run else "are"
    return f"{numbered(done.stalled, 'instance')} {would} stalled now, {done.lost} {would} given up as lost"


def _check(database: Database, options: Options, repair: bool = False) -> str:
    checked = checking.check(database, repair and not options.dry_run)
    if checked.holds:
        return checked.in_words()
    raise Wrong(checked.in_words())


def _cleaned(clean: Callable[[Database, bool], str]) -> Callable[[Database, Options], str]:
    return lambda database, options: clean(database, options.dry_run)


def compare_counts(database: Database, repair: bool = False) -> str:
    """Compare the counters of every job with a fresh count and return which differ; ``repair`` sets them right."""
    return _counts_compared(database, repair)[1]


def _counts_compared(database: Database, repair: bool) -> tuple[bool, str]:
    jobs = list(database.jobs.find({}, {"title": 1, "slug": 1, "execution_site": 1}))
    wrong = [(job, differences) for job in jobs if (differences := _compare(database, job, repair))]
    if not wrong:
        return False, f"the counts of {numbered(len(jobs), 'job')} are exact"
    named = [f"{job['title']} ({job['slug']}): {_in_words(differences)}" for job, differences in wrong[:MOST_NAMED]]
    more = [f"and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
    verdict = "were wrong and are repaired" if repair else "are wrong"
    said = f"the counts of {len(wrong)} of {numbered(len(jobs), 'job')} {verdict}: "
    return True, said + "; ".join(named + more)


def _compare(database: Database, job: Document, repair: bool) -> Counts:
    """Return what the counters of a job have too little (or, below zero, too much), where that is not nothing."""
    return database.transaction(
        lambda session: counts.compare(database, job["_id"], job["execution_site"], repair, session)
    )


def _in_words(differences: Counts) -> str:
    return ", ".join(
        f"{abs(difference)} {status} too {'few' if difference > 0 else 'many'}"
        for status, difference in differences.items()
    )


ACTIONS: Mapping[str, Action] = {
    "return-expired-leases": Action(
        "Return expired leases",
        "Makes instances claimable again whose agent did not submit them in time. Every claim does so as well.",
        _return_expired_leases,
    ),
    "compare-counts": Action(
        "Compare counts",
        "Counts the instances of every job afresh, and says which counters differ. Changes nothing.",
        _compare_counts,
    ),
    "repair-counts": Action(
        "Repair counts",
        "Compares the counts, and sets right those that differ.",
        partial(_compare_counts, repair=True),
    ),
    "reap": Action(
        "Reap",
        "Marks instances without a sign of life as stalled, and gives up what stays so, as servers do every minute.",
        _reap,
    ),
    "monitor": Action(
        "Monitor",
        "Says what is stuck: the oldest of each status, silent agents, sites in trouble, paused jobs.",
        _cleaned(lambda database, _: monitoring.in_words(database)),
    ),
    "check": Action(
        "Check",
        "Verifies everything that must hold in this database, and names what does not. Changes nothing.",
        _check,
    ),
    "repair": Action(
        "Repair",
        "Checks, and sets right what is safe to: counts, indexes, and marks that follow from other fields.",
        partial(_check, repair=True),
    ),
    "remove-duplicates": Action(
        "Remove duplicates",
        "Of instances with the same number, and files of the same name at a site, keeps the one that came farthest.",
        _cleaned(cleaning.remove_duplicates),
    ),
    "remove-orphans": Action(
        "Remove orphans",
        "Removes instances, counters and statistics whose job is gone.",
        _cleaned(cleaning.remove_orphans),
    ),
    "remove-orphaned-files": Action(
        "Remove orphaned files",
        "Removes entries with the status Orphaned from the data catalogue; the files themselves stay where they are.",
        _cleaned(cleaning.remove_orphaned_files),
    ),
}
