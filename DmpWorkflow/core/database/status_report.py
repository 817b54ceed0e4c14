"""A status report, and what it changes in the instance that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import attempt_numbers
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import ACTIVE, FINAL, MajorStatus
from DmpWorkflow.core.reports import InstanceState, Report, is_implicit_claim
from DmpWorkflow.core.samples import LIMIT, append_thinned

HISTORY_LIMIT = 100  # entries of one attempt
LINE_LIMIT = 200  # characters of the last line
LOG_LIMIT = 64 * 1024  # characters; the end of a log is what tells
STATE_FIELDS = {
    "job": 1, "instanceId": 1, "site": 1, "status": 1, "minor_status": 1, "attempt": 1, "handed_out": 1,
    "retried": 1, "avoided": 1, "stalled_since": 1, "attempts.hostname": 1,
    "sequence": 1, "runner": 1, "lost": 1, "kill": 1, "batchId": 1, "samples": {"$size": {"$ifNull": ["$cpu", []]}},
    "hostname": 1, "started_at": 1, "cpu_peak": 1, "memory_peak": 1, "cpu_max": 1, "mem_max": 1, "Nevents": 1,
}  # fmt: skip
PLAIN = ("batchId", "hostname", "Nevents", "cpu_max", "mem_max")

Key = tuple[ObjectId, int]


@dataclass(frozen=True)
class StatusReport:
    """A report as it arrives: what to decide on, for which instance, and the ``values`` that come with it.

    ``values`` may hold minor_status, batchId, hostname, Nevents, cpu, memory, cpu_max, mem_max and log.
    ``lost`` marks a final status that the sender concludes from silence; of one that is concluded from being
    stalled, ``stalled_since`` says since when, and any contact since then refutes it.
    """

    job: ObjectId
    instance: int
    report: Report
    values: Mapping[str, Any] = field(default_factory=dict)
    lost: bool = False
    stalled_since: datetime | None = None

    @property
    def key(self) -> Key:
        return self.job, self.instance


def state_of(stored: Document) -> InstanceState:
    """Return what counts for whether a report of this instance (with STATE_FIELDS) applies."""
    return InstanceState(
        status=MajorStatus(stored["status"]),
        attempt=stored["attempt"],
        handed_out=stored["handed_out"],
        sequence=stored.get("sequence", -1),
        runner=stored.get("runner"),
        lost=stored.get("lost", False),
    )


def guard_of(state: Document) -> Document:
    """Return what finds the instance as long as it is in that state."""
    fields = ("_id", "status", "attempt", "handed_out")
    optional = ("sequence", "runner", "stalled_since")  # absent matches null
    return {name: state[name] for name in fields} | {name: state.get(name) for name in optional}


def update_of(database: Database, report: StatusReport, state: Document, now: datetime) -> Document:
    """Return what an accepted report changes in the instance."""
    status, minor = str(report.report.status), report.values.get("minor_status")
    changes: Document = {"status": status, "last_update": now, "lost": report.lost, "claimable": False}
    changes |= {} if report.lost else {"last_contact": now}
    changes |= {"quiet": True} if report.report.attempt is None else {}
    changes["active"] = report.report.status in ACTIVE
    if report.report.sequence is not None:
        changes["sequence"] = report.report.sequence
    if is_implicit_claim(state_of(state), report.report):
        changes |= {"attempt": attempt_numbers.following(database, state["attempt"]), "handed_out": True}
    changes |= {name: report.values[name] for name in PLAIN if report.values.get(name) is not None}
    if report.report.runner:
        changes["runner"] = report.report.runner
    if minor:
        changes["minor_status"] = minor
    if log := report.values.get("log"):
        changes |= {"log": log[-LOG_LIMIT:], "last_line": last_line(log)}
    if report.report.status is MajorStatus.RUNNING and not state.get("started_at"):
        changes["started_at"] = now
    ended = report.report.status in FINAL
    gone = ["stalled_since", "waits_until"] + (["claim"] if ended else [])
    gone += [] if report.report.attempt is None else ["quiet"]
    made: Document = {"$set": changes, "$unset": dict.fromkeys(gone, "")}
    if (status, minor or state["minor_status"]) != (state["status"], state["minor_status"]):
        entry = {"status": status, "minor_status": minor or state["minor_status"], "update": now}
        made["$push"] = {"status_history": {"$each": [entry], "$slice": -HISTORY_LIMIT}}
    _add_samples(database, report, state, made)
    return made


def last_line(log: str) -> str:
    """Return what failures are grouped by."""
    return next((line.strip() for line in reversed(log[-LOG_LIMIT:].splitlines()) if line.strip()), "")[:LINE_LIMIT]


def _add_samples(database: Database, report: StatusReport, state: Document, made: Document) -> None:
    samples = {
        name: {"time": made["$set"]["last_update"], "value": float(report.values[name])}
        for name in ("cpu", "memory")
        if report.values.get(name) is not None
    }
    if not samples:
        return
    made["$max"] = {f"{name}_peak": sample["value"] for name, sample in samples.items()}
    if state["samples"] < LIMIT:
        made.setdefault("$push", {}).update(samples)
        return
    stored = database.instances.find_one({"_id": state["_id"]}, dict.fromkeys(samples, 1)) or {}
    for name, sample in samples.items():
        made["$set"][name] = append_thinned(stored.get(name, []), sample)
