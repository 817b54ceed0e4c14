"""Signs of life: of processes, as the original's clients send them, and of agents with what they hold."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bson import ObjectId

from DmpWorkflow.core.database import clock, snapshots
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.reaper import Patience
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus

NOTED = 10  # contacts in the time after which silence counts: each is a write for each instance that is held
USUAL_PATIENCE = Patience()
MOST_SPANS = 200  # of numbers in a row that are asked for as such
ANSWERED_FIELDS = {
    "job": 1, "instanceId": 1, "status": 1, "attempt": 1, "handed_out": 1, "active": 1, "kill": 1, "lost": 1,
    "last_contact": 1, "stalled_since": 1,
}  # fmt: skip


class Answer(StrEnum):
    """What an agent is to do with an instance that it holds."""

    GO_ON = "go on"  # it is the current attempt
    ADOPT = "adopt"  # it is the current attempt, and the server does not know it as submitted: report it
    OVER = "over"  # it has reported its end: nothing to do, unless its batch job stays
    KILL = "kill"  # somebody wants its end: cancel it, and report Terminated once it is gone
    CANCEL = "cancel"  # an old attempt
    UNKNOWN = "unknown"  # there is no such instance


@dataclass(frozen=True)
class Held:
    """Instances of one job that an agent has in its batch system, all with the same number of attempt."""

    job: ObjectId
    attempt: int
    instances: Sequence[int]


def beat(database: Database, hostname: str, process: str, version: str) -> None:
    """Note a sign of life of a process on a host; the server's clock counts."""
    database.heartbeats.update_one(
        {"hostname": hostname, "process": process},
        {"$set": {"_cls": "HeartBeat", "version": version, "timestamp": clock.now()}},
        upsert=True,
    )


def recent(database: Database, limit: int) -> list[str]:
    """Return the hosts that were heard of last, the latest first."""
    beats = database.heartbeats.find({}, {"hostname": 1}, sort=[("timestamp", -1)], limit=limit)
    return [found["hostname"] for found in beats] if limit else []


def agent_beat(
    database: Database,
    beat: Document,
    site: str,
    holds: Sequence[Held] | None,
    patience: Patience = USUAL_PATIENCE,
) -> list[tuple[Answer, Held]]:
    """Note an agent's sign of life, also for what it holds, and return all answers but GO_ON.

    ``beat`` has agent, hostname, version and, if the agent complains, problem. ``holds`` is None if it does not know.
    ``patience`` is how much silence is borne, as by the reaper.
    """
    now = clock.now()
    told = beat if holds is None else beat | {"holds": sum(len(held.instances) for held in holds)}
    # This waits for a majority, so that what is read next, of which jobs die, is no older than what others were told.
    database.agents.update_one(
        {"site": site, "agent": beat["agent"]}, {"$set": told | {"last_beat": now}}, upsert=True
    )
    _remember(database, told, site, now)
    held_now = [held for held in holds or () if held.instances]
    return [
        answer
        for attempt in sorted({held.attempt for held in held_now})
        for answer in _answers(database, site, attempt, _numbers(held_now, attempt), now, patience)
    ]


def _numbers(holds: Sequence[Held], attempt: int) -> dict[ObjectId, set[int]]:
    numbers: dict[ObjectId, set[int]] = {}
    for held in holds:
        if held.attempt == attempt:
            numbers.setdefault(held.job, set()).update(held.instances)
    return numbers


def _answers(
    database: Database,
    site: str,
    attempt: int,
    numbers: dict[ObjectId, set[int]],
    now: datetime,
    patience: Patience,
) -> list[tuple[Answer, Held]]:
    """Answer for what is held with this number of attempt; the database tells of those only that may not just go on.

    Agents beat often, and hold many: a contact is noted, which is a write for each, NOTED times within the
    least silence after which one of these jobs is stalled.
    """
    fields = {"allotted": 1, "lost_after": 1, "removing": 1, "creations": 1}
    here = {
        job["_id"]: job for job in database.jobs.find({"_id": {"$in": list(numbers)}, "execution_site": site}, fields)
    }
    stalling = [patience.times(False, job.get("lost_after"))[0] for job in here.values()]
    since = now - min(stalling, default=patience.stalled) / NOTED
    unknown = {job: gone for job, ids in numbers.items() if (gone := _unknown(database, here.get(job), ids))}
    answers: dict[tuple[Answer, ObjectId], list[int]] = {}
    known = {job: left for job, ids in numbers.items() if (left := ids - unknown.get(job, set()))}
    if known:
        held = {"$or": _filters(known)}
        current = {"attempt": attempt, "active": True}
        fine = current | {"kill": {"$ne": True}, "stalled_since": None, "last_contact": {"$gt": since}}
        others = list(database.instances.find(held | {"$nor": [fine]}, ANSWERED_FIELDS))
        for state in others:
            if (answer := _answer(state, attempt)) is not Answer.GO_ON:
                answers.setdefault((answer, state["job"]), []).append(state["instanceId"])
        if any(_is_silent(state, attempt, since) for state in others):
            contact = {"$set": {"last_contact": now}, "$unset": {"stalled_since": ""}}
            database.instances.update_many(held | current, contact)
    answers |= {(Answer.UNKNOWN, job): list(ids) for job, ids in unknown.items()}
    return [(answer, Held(job, attempt, sorted(ids))) for (answer, job), ids in answers.items()]


def _unknown(database: Database, job: Document | None, numbers: set[int]) -> set[int]:
    """Return those instances that there are not; None is a job that is not at this site.

    A job has all its numbers, unless they are just being made or removed, perhaps by a process that died.
    """
    if job is None:
        return numbers
    if not (job.get("removing") or job["creations"]):
        return {number for number in numbers if not 1 <= number <= job["allotted"]}
    wanted = {"job": job["_id"], "instanceId": {"$in": list(numbers)}}
    return numbers - {found["instanceId"] for found in database.instances.find(wanted, {"instanceId": 1})}


def _is_silent(state: Document, attempt: int, since: datetime) -> bool:
    """Say whether nothing was heard of the current attempt since then, or it is taken for stalled."""
    if state["attempt"] != attempt or not state.get("active"):
        return False
    heard_of = state.get("last_contact")
    return heard_of is None or heard_of <= since or state.get("stalled_since") is not None


def _filters(numbers: dict[ObjectId, set[int]]) -> list[Document]:
    """Return what finds these instances: by spans of numbers if they are few, since that is a fifth quicker."""
    spans = [{"job": job, "instanceId": span} for job, ids in numbers.items() for span in _spans(ids)]
    if len(spans) <= max(MOST_SPANS, len(numbers)):
        return spans
    return [{"job": job, "instanceId": {"$in": list(ids)}} for job, ids in numbers.items()]


def _spans(numbers: set[int]) -> list[Document]:
    if max(numbers) - min(numbers) < len(numbers):  # as most are; below, numbers in a row keep their distance
        return [{"$gte": min(numbers), "$lte": max(numbers)}]
    runs = [
        [number for _, number in run]
        for _, run in itertools.groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    ]
    return [{"$gte": run[0], "$lte": run[-1]} for run in runs]


def _remember(database: Database, beat: Document, site: str, now: datetime) -> None:
    """Keep this quarter of an hour in the agent's history; the last complaint in it stays."""
    time = snapshots.quarter(now)
    told = {"site": site, "agent": beat["agent"], "time": time}
    told |= {name: beat[name] for name in ("holds", "problem") if beat.get(name) not in (None, "")}
    key = f"{site}|{beat['agent']}|{time:%Y%m%d%H%M}"
    database.beats.update_one({"_id": key}, {"$set": told, "$inc": {"beats": 1}}, upsert=True)


def history(database: Database, site: str, begin: datetime) -> list[Document]:
    """Return what the agents of a site told in each quarter of an hour, the oldest first."""
    return list(database.beats.find({"site": site, "time": {"$gte": begin}}, sort=[("time", 1), ("agent", 1)]))


def complaints(database: Database, site: str, most: int = 5) -> list[Document]:
    """Return what the agents of a site complained about, the latest first: agent, time (ISO 8601), problem."""
    told = {"site": site, "problem": {"$exists": True}}
    found = database.beats.find(told, sort=[("time", -1)], limit=most)
    return [{"agent": one["agent"], "time": iso(one["time"]), "problem": one["problem"]} for one in found]


def agents(database: Database, sites: Sequence[str]) -> list[Document]:
    """Return the agents of these sites with their last beat, the latest first."""
    return list(database.agents.find({"site": {"$in": list(sites)}}, sort=[("last_beat", -1)]))


def _answer(state: Document, attempt: int) -> Answer:
    if not state["handed_out"] or state["attempt"] != attempt:
        return Answer.CANCEL
    if state["status"] in FINAL and not state.get("lost"):
        return Answer.OVER
    if state.get("kill"):
        return Answer.KILL
    return Answer.ADOPT if state["status"] == MajorStatus.NEW else Answer.GO_ON
