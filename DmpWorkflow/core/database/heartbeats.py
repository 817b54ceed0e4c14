"""Signs of life: of processes, as the original's clients send them, and of agents with what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bson import ObjectId

from DmpWorkflow.core.database import clock, snapshots
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.work import iso
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus

NOTE_CONTACT_EVERY = timedelta(minutes=1)


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
    """An attempt that an agent has in its batch system."""

    job: ObjectId
    instance: int
    attempt: int


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


def agent_beat(database: Database, beat: Document, site: str, holds: Sequence[Held]) -> list[Answer]:
    """Note an agent's sign of life, also for what it holds, and answer for each of these.

    ``beat`` has agent, hostname, version and, if the agent complains, problem.
    """
    now = clock.now()
    database.agents.update_one(
        {"site": site, "agent": beat["agent"]}, {"$set": beat | {"last_beat": now, "holds": len(holds)}}, upsert=True
    )
    _remember(database, beat, site, len(holds), now)
    states = _states(database, site, holds)
    answers = [_answer(states.get((held.job, held.instance)), held) for held in holds]
    alive = [
        states[held.job, held.instance]["_id"]
        for held, answer in zip(holds, answers, strict=True)
        if answer in (Answer.GO_ON, Answer.KILL) and _is_stale(states[held.job, held.instance], now)
    ]
    if alive:
        contact = {"$set": {"last_contact": now}, "$unset": {"stalled_since": ""}}
        database.instances.update_many({"_id": {"$in": alive}}, contact)
    return answers


def _is_stale(state: Document, now: datetime) -> bool:
    """Say whether the last contact is worth noting anew: agents may beat often, and hold many."""
    last = state.get("last_contact")
    return last is None or now - last >= NOTE_CONTACT_EVERY


def _remember(database: Database, beat: Document, site: str, holds: int, now: datetime) -> None:
    """Keep this quarter of an hour in the agent's history; the last complaint in it stays."""
    time = snapshots.quarter(now)
    told = {"site": site, "agent": beat["agent"], "time": time, "holds": holds}
    told |= {"problem": beat["problem"]} if beat.get("problem") else {}
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


def _states(database: Database, site: str, holds: Sequence[Held]) -> dict[tuple[ObjectId, int], Document]:
    numbers: dict[ObjectId, list[int]] = {}
    for held in holds:
        numbers.setdefault(held.job, []).append(held.instance)
    if not numbers:
        return {}
    query = {"$or": [{"job": job, "instanceId": {"$in": ids}} for job, ids in numbers.items()], "site": site}
    fields = dict.fromkeys(
        ("job", "instanceId", "status", "attempt", "handed_out", "kill", "last_contact", "lost"), 1
    )
    return {(found["job"], found["instanceId"]): found for found in database.instances.find(query, fields)}


def _answer(state: Document | None, held: Held) -> Answer:
    if state is None:
        return Answer.UNKNOWN
    if not state["handed_out"] or state["attempt"] != held.attempt:
        return Answer.CANCEL
    if state["status"] in FINAL and not state.get("lost"):
        return Answer.OVER
    if state.get("kill"):
        return Answer.KILL
    return Answer.ADOPT if state["status"] == MajorStatus.NEW else Answer.GO_ON
