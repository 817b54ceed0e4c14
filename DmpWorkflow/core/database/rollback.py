"""Roll-back: instances start anew, and the history of their earlier attempts stays."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import audit, children, clock, counts, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.creation import AWAITING
from DmpWorkflow.core.database.resolution import check_overrides
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.parts import in_parts

CHUNK = 1000
ATTEMPTS_KEPT = 20
LOG_KEPT = 4096  # characters of an earlier attempt's log, its end
KEPT = (
    "attempt", "status", "minor_status", "status_history", "batchId", "hostname", "runner", "Nevents",
    "cpu_peak", "memory_peak", "cpu_max", "mem_max", "started_at",
)  # fmt: skip
FORGOTTEN = (
    "batchId", "hostname", "runner", "sequence", "lost", "claim", "kill", "Nevents", "log", "cpu", "memory",
    "cpu_peak", "memory_peak", "cpu_max", "mem_max", "started_at", "last_line", "quiet", "stalled_since",
    "last_contact", "waits_until",
)  # fmt: skip


def roll_back(database: Database, job: ObjectId, numbers: Sequence[int], body: str | None = None) -> int:
    """Set these instances of ``job`` to New, whatever they are, and return how many there were.

    No attempt is current then: what still runs of an earlier one is refused. ``body``, if given, replaces the
    overrides (JSON text). Raises NotFound for a job that is gone, Conflict for one that is archived, InvalidInput for
    overrides that do not fit it.
    """
    changed = 0
    if body:
        check_overrides(database, job, body)
    told = {"instances": audit.spans(numbers), "number": len(numbers)} | ({} if body is None else {"overrides": body})
    for chunk in in_parts(numbers, CHUNK):
        changed += database.transaction(partial(_chunk, database, job, chunk, body, told))
        told = {}
    return changed


def _chunk(
    database: Database,
    job: ObjectId,
    numbers: Sequence[int],
    body: str | None,
    told: Document,
    session: ClientSession,
) -> int:
    found = jobs.check_open(database, job, session)
    if told:  # with the first chunk, so that there is a row also of what a crash cut short
        audit.note(database, "instances.rollback", f"job/{found['slug']}", after=told, session=session)
    chosen = {"job": job, "instanceId": {"$in": list(numbers)}}
    before = list(database.instances.find(chosen, {"instanceId": 1, "status": 1}, session=session))
    database.instances.update_many(chosen, start_anew(_fresh(body, bool(found.get("paused")))), session=session)
    done = [found["instanceId"] for found in before if found["status"] == MajorStatus.DONE]
    if done:
        children.hold_back(database, job, done, session)
    deltas = Counter({MajorStatus.NEW: len(before)})
    deltas.subtract(MajorStatus(found["status"]) for found in before)
    counts.change(database, job, deltas, session)
    return len(before)


def _fresh(body: str | None, paused: bool) -> Document:
    fresh: Document = {"handed_out": False, "retried": 0, "avoided": 0, "paused": paused}
    return fresh | ({} if body is None else {"body": {"$literal": body}})


def start_anew(fresh: Document, forgotten: Sequence[str] = FORGOTTEN) -> list[Document]:
    """Return an update pipeline that makes an instance New, with the values ``fresh``, and remembers its attempt.

    What ``forgotten`` names is taken off.
    """
    time = clock.now()
    log = {"$ifNull": ["$log", ""]}
    kept: Document = {name: f"${name}" for name in KEPT}
    start = {"$max": [0, {"$subtract": [{"$strLenCP": log}, LOG_KEPT]}]}
    kept |= {"ended": "$last_update", "log": {"$substrCP": [log, start, LOG_KEPT]}}
    # An instance that was never handed out has no attempt to remember.
    entry = {"$cond": ["$handed_out", [kept], []]}
    attempts = {"$slice": [{"$concatArrays": [{"$ifNull": ["$attempts", []]}, entry]}, -ATTEMPTS_KEPT]}
    new: Document = {
        "status": str(MajorStatus.NEW),
        "minor_status": AWAITING,
        "last_update": time,
        "status_history": [{"status": str(MajorStatus.NEW), "minor_status": AWAITING, "update": time}],
        "active": False,
    }
    return [
        {"$set": {"attempts": attempts}},
        {"$unset": list(forgotten)},
        {"$set": new | fresh},
        {"$set": {"claimable": children.IS_READY}},
    ]
