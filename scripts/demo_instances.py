"""The instances of a family of jobs, as the program would have stored them by now, and their past. Pure."""

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import activity, distributions
from DmpWorkflow.core.database.creation import AWAITING
from DmpWorkflow.core.database.rollback import KEPT, LOG_KEPT
from scripts.demo_plan import HOUR, Calendar, Family, PlannedJob

CPU_LIMIT, MEMORY_LIMIT = 86400.0, 4000.0  # seconds and MB of every attempt
QUARTER = 900.0
EVENTS = 10_000  # of an attempt that ended well
MOST_ATTEMPTS = 3
DETAILED = 0.01  # of those that ended well: with samples and a log
SUSPENDED = 0.01  # of those that run
HOLE_SINCE, HOLE_SHARE = 30 * HOUR, 0.3  # how long a host fails all it gets, and how much of the site's work it gets
Document = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """A way in which an attempt ends: after which fraction of its time, and what its log says."""

    status: str
    minor: str
    fraction: float
    log: str
    lost: bool = False


DONE = Ending("Done", "ApplicationComplete", 1.0, "events processed: 10000\nclosing output.root\nbye\n")
HOLE = Ending(
    "Failed", "ApplicationExitCode127", 0.0,
    "/cvmfs/dampe.cern.ch: Transport endpoint is not connected\n"
    ".dwf-start.sh: line 2: DmpSim: command not found\nthe payload ended with exit code 127\n",
)  # fmt: skip
ENDINGS = (
    Ending("Failed", "ApplicationExitCode1", 0.4,
           "G4Exception: GeomNav1002, track stuck or not moving\nevent 4711 aborted\n"
           "the payload ended with exit code 1\n"),
    Ending("Failed", "ApplicationExitCode139", 0.7,
           "*** Break *** segmentation violation\n#0 DmpEvtBgoHits::Clear()\n#1 DmpRootIOSvc::FillEvent()\n"
           "the payload ended with exit code 139\n"),
    Ending("Terminated", "ExceedingMemory", 0.6,
           "event 6200 of 10000\nstopped by the watchdog: 7421 s of 86400 s CPU time, 3881 MB of 4000 MB memory\n"),
    Ending("Failed", "SourceFileDoesNotExist", 0.01,
           "xrdcp: No such file or directory\nroot://xrootd.example.org//dampe/input.root does not exist\n"),
    Ending("Failed", "BatchJobVanished", 0.9, "the batch system knows it no more", lost=True),
    Ending("Failed", "TransferFailed", 1.0,
           "xrdcp: [ERROR] Server responded with an error: no space left on device\ntransfer failed\n"),
    Ending("Terminated", "ExceedingCpuTime", 1.5,
           "event 9100 of 10000\nstopped by the watchdog: 84700 s of 86400 s CPU time, 1210 MB of 4000 MB memory\n"),
    Ending("Terminated", "KilledByUser", 0.3, "", lost=True),
)  # fmt: skip
USUAL = (0, 0, 1, 2, 3, 5)  # of them, those that whole jobs suffer from


@dataclass
class Tally:
    """What happened, in the units of the statistics; hours, days and quarters are counted from 1970 on."""

    changes: Counter[tuple[str, int, str]] = field(default_factory=Counter)  # scope, hour, status
    failures: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)  # site, status, minor, hour
    hosts: Counter[tuple[str, str, int, str]] = field(default_factory=Counter)  # site, host, day, status
    moves: Counter[tuple[str, int, str]] = field(default_factory=Counter)  # site, quarter, status: how many more
    used: dict[ObjectId, Counter[str]] = field(default_factory=dict)  # by bins of the distributions
    counts: dict[ObjectId, Counter[str]] = field(default_factory=dict)  # status

    def add(self, other: "Tally") -> None:
        """Add what happened elsewhere."""
        self.changes.update(other.changes)
        self.failures.update(other.failures)
        self.hosts.update(other.hosts)
        self.moves.update(other.moves)
        self.used |= other.used
        self.counts |= other.counts


@dataclass
class Attempt:
    """One attempt in seconds since 1970, as it would go on if nobody looked."""

    number: int
    submitted: float
    started: float
    ended: float
    ending: Ending
    host: str
    wall: float
    cpu: float
    memory: float


class History:
    """Makes the instances of a family; ``tally`` is complete when all were taken."""

    def __init__(self, seed: str, now: datetime, family: Family) -> None:
        self.family = family
        self.now = now.timestamp()
        self.tally = Tally()
        self.ids = [_job_id(job, job.slug(seed)) for job in family]
        self._dice = random.Random(f"{seed} {family[0].title}")  # noqa: S311 - the same data for the same seed
        self._calendar = Calendar(now, family[0].site.quiet)
        self._parent_done: list[float | None] = []

    def instances(self) -> Iterator[Document]:
        """Yield the instances of all jobs, the parents' first, in the order of their numbers."""
        for position, job in enumerate(self.family):
            yield from self._of_job(job, self.ids[position], self.ids[position - 1] if position else None)

    def _of_job(self, job: PlannedJob, job_id: ObjectId, parent: ObjectId | None) -> Iterator[Document]:
        before, self._parent_done = self._parent_done, []
        self.tally.used[job_id], self.tally.counts[job_id] = Counter(), Counter()
        begin = self._calendar.work(job.created + 600)
        prefix = job_id.binary[:4] + self._dice.randbytes(4)
        for number in range(1, job.instances + 1):
            ready = job.created if parent is None else before[number - 1]
            work = begin + job.working * (number + 20 * self._dice.random()) / (job.instances + 20)
            done, document = self._instance(job, job_id, number, ready, work)
            if parent is not None:
                document["waiting_for"] = [parent] if ready is None else []
            document["_id"] = ObjectId(prefix + struct.pack(">I", number))
            self._parent_done.append(done)
            yield document

    def _instance(
        self, job: PlannedJob, job_id: ObjectId, number: int, ready: float | None, work: float
    ) -> tuple[float | None, Document]:
        """Return when the instance was Done, if it was, and its document."""
        document: Document = {
            "_cls": "JobInstance", "job": job_id, "instanceId": number, "site": job.site.name,
            "priority": job.priority, "status": "New", "minor_status": AWAITING, "created_at": _time(job.created),
            "last_update": _time(job.created), "body": "", "attempt": 0, "handed_out": False,
            "claimable": ready is not None,
        }  # fmt: skip
        self._move(job, "", "New", job.created)
        done = None
        after = ready
        while after is not None and document["attempt"] < MOST_ATTEMPTS:
            attempt = self._attempt(job, document["attempt"] + 1, max(work, self._calendar.work(after)))
            if attempt.submitted >= self.now:
                break
            self._apply(job, job_id, attempt, document)
            if attempt.ended >= self.now:
                break
            if attempt.ending is DONE:
                done = attempt.ended
                break
            after = attempt.ended + HOUR * self._dice.uniform(1, 24)
            if self._dice.random() < 0.35 or after >= self.now:  # nobody rolls it back
                break
            self._roll_back(job, document, after)
        self.tally.counts[job_id][document["status"]] += 1
        return done, document

    def _attempt(self, job: PlannedJob, number: int, work: float) -> Attempt:
        dice, site = self._dice, job.site
        submitted = self._calendar.time(work)
        started = submitted + 60 + dice.expovariate(1 / 1800)
        host = site.host(dice.randrange(site.hosts))
        ending = self._ending(job) if dice.random() < job.failing * site.failing / number else DONE
        wall = min(job.wall * dice.lognormvariate(0, 0.25), 40 * HOUR) * ending.fraction + dice.uniform(3, 12)
        if site.hole is not None and started > self.now - HOLE_SINCE and dice.random() < HOLE_SHARE:
            host, ending, wall = site.host(site.hole), HOLE, dice.uniform(2, 9)
        memory = job.memory * dice.lognormvariate(0, 0.12)
        if ending.minor == "ExceedingMemory":
            memory = 3881.0
        cpu = wall * dice.uniform(0.75, 0.99) if ending is not HOLE else 0.1
        return Attempt(
            number, submitted, started, started + wall, ending, host, wall, round(cpu, 2), round(memory, 1)
        )

    def _ending(self, job: PlannedJob) -> Ending:
        if self._dice.random() < 0.7:
            return ENDINGS[USUAL[job.usual % len(USUAL)]]
        return self._dice.choice(ENDINGS)

    def _apply(self, job: PlannedJob, job_id: ObjectId, attempt: Attempt, document: Document) -> None:
        """Put into the document what was reported of the attempt by now."""
        submitted = _time(attempt.submitted)
        request = f"{job_id}-{document['instanceId'] // 20}-{attempt.number}"
        document |= {
            "status": "Submitted", "minor_status": "WaitingForExecution", "last_update": submitted,
            "last_contact": submitted, "attempt": attempt.number, "handed_out": True, "claimable": False,
            "active": True, "lost": False, "sequence": 0, "claim": {"request": request, "agent": job.site.agents[0]},
            "batchId": job.site.batch_id.format(
                int(attempt.submitted) % 10_000_000 // 10, document["instanceId"] % 100 + 1
            ),
        }  # fmt: skip
        document.setdefault("status_history", []).append(_entry("Submitted", "WaitingForExecution", submitted))
        self._move(job, "New", "Submitted", attempt.submitted)
        if attempt.started < self.now:
            self._run(job, job_id, attempt, document)

    def _run(self, job: PlannedJob, job_id: ObjectId, attempt: Attempt, document: Document) -> None:
        started = _time(attempt.started)
        document |= {
            "status": "Running", "hostname": attempt.host, "started_at": started, "cpu_max": CPU_LIMIT,
            "mem_max": MEMORY_LIMIT, "runner": f"{self._dice.getrandbits(128):032x}",
        }  # fmt: skip
        history = document["status_history"]
        for minor, after in (("PreparingJob", 0.0), ("PreparingInputData", 0.4), ("ExecutingApplication", 1.5)):
            if attempt.started + after < self.now:
                history.append(_entry("Running", minor, _time(attempt.started + after)))
        document["minor_status"] = history[-1]["minor_status"]
        self._move(job, "Submitted", "Running", attempt.started)
        self._note(job, job_id, "Running", attempt.started)
        over = attempt.ended < self.now
        detailed = not over or job.showcase or self._dice.random() < DETAILED
        until = min(attempt.ended, self.now)
        self._sample(attempt, document, until, 20 if detailed else 0)
        document["sequence"] = 4 + int((until - attempt.started) / 60)
        document["last_update"] = document["last_contact"] = _time(until - (0 if over else 30 * self._dice.random()))
        if over:
            self._end(job, job_id, attempt, document, with_log=detailed or attempt.ending is not DONE)
        elif self._dice.random() < SUSPENDED:
            self._suspend(job, document)

    def _suspend(self, job: PlannedJob, document: Document) -> None:
        """Let the batch system have stopped it just now."""
        document |= {"status": "Suspended", "minor_status": "SuspendedByBatch", "last_update": _time(self.now)}
        document["status_history"].append(_entry("Suspended", "SuspendedByBatch", _time(self.now)))
        self._move(job, "Running", "Suspended", self.now)

    def _sample(self, attempt: Attempt, document: Document, until: float, number: int) -> None:
        """Add samples of CPU and memory, the last one as of ``until``."""
        span = until - attempt.started
        parts = [position / (number + 1) for position in range(1, number + 2)]
        times = [_time(attempt.started + span * part) for part in parts]
        cpu = [round(attempt.cpu * span / attempt.wall * part, 2) for part in parts]
        memory = [round(attempt.memory * _shape(position, number), 1) for position in range(number + 1)]
        document["cpu"] = [{"time": time, "value": value} for time, value in zip(times, cpu, strict=True)]
        document["memory"] = [{"time": time, "value": value} for time, value in zip(times, memory, strict=True)]
        document |= {"cpu_peak": cpu[-1], "memory_peak": max(memory)}

    def _end(self, job: PlannedJob, job_id: ObjectId, attempt: Attempt, document: Document, with_log: bool) -> None:
        ending, ended = attempt.ending, _time(attempt.ended)
        document |= {
            "status": ending.status, "minor_status": ending.minor, "last_update": ended, "active": False,
            "lost": ending.lost,
        }  # fmt: skip
        del document["claim"]
        if ending is DONE:
            document["Nevents"] = EVENTS
            document["status_history"].append(
                _entry("Running", "PreparingOutputData", _time(attempt.ended - min(3.0, attempt.wall / 9)))
            )
        document["status_history"].append(_entry(ending.status, ending.minor, ended))
        if with_log and ending.log:
            document["log"] = f"host {attempt.host}, instance {document['instanceId']}\n{ending.log}"
            document["last_line"] = ending.log.rstrip("\n").rpartition("\n")[2]
        self._move(job, "Running", ending.status, attempt.ended)
        self._note(job, job_id, ending.status, attempt.ended)
        self._note_end(job, job_id, attempt, document)

    def _roll_back(self, job: PlannedJob, document: Document, time: float) -> None:
        kept = {name: document[name] for name in KEPT if name in document}
        kept |= {"ended": document["last_update"], "log": document.get("log", "")[-LOG_KEPT:]}
        self._move(job, document["status"], "New", time)
        attempts = [*document.get("attempts", []), kept]
        fresh = {name: document[name] for name in FIRST}
        document.clear()
        document |= fresh | {
            "status": "New", "minor_status": AWAITING, "last_update": _time(time), "attempts": attempts,
            "status_history": [_entry("New", AWAITING, _time(time))], "last_contact": kept["ended"],
            "handed_out": False, "active": False, "claimable": True,
        }  # fmt: skip

    def _move(self, job: PlannedJob, before: str, after: str, time: float) -> None:
        """Note a change of status, as of the begin of the quarter of an hour that follows."""
        quarter = -int(-time // QUARTER)
        if before:
            self.tally.moves[job.site.name, quarter, before] -= 1
        self.tally.moves[job.site.name, quarter, after] += 1

    def _note(self, job: PlannedJob, job_id: ObjectId, status: str, time: float) -> None:
        hour = int(time // HOUR)
        self.tally.changes[activity.of_site(job.site.name), hour, status] += 1
        self.tally.changes[activity.of_job(job_id), hour, status] += 1

    def _note_end(self, job: PlannedJob, job_id: ObjectId, attempt: Attempt, document: Document) -> None:
        site, ending = job.site.name, attempt.ending
        self.tally.hosts[site, attempt.host, int(attempt.ended // (24 * HOUR)), ending.status] += 1
        if ending is DONE:
            self.tally.used[job_id]["events"] += EVENTS
        else:
            self.tally.failures[site, ending.status, ending.minor, int(attempt.ended // HOUR)] += 1
        used = self.tally.used[job_id]
        cpu, wall = document["cpu_peak"], attempt.wall
        for name, value in (("cpu", cpu), ("memory", document["memory_peak"]), ("wall", wall)):
            used[f"{name}.{distributions._bin(value)}"] += 1
        used["cpu_seconds"] += round(cpu)
        used["wall_seconds"] += round(wall)


def _job_id(job: PlannedJob, slug: str) -> ObjectId:
    return ObjectId(struct.pack(">I", int(job.created)) + bytes.fromhex(slug) + b"\0\0")


FIRST = ("_cls", "job", "instanceId", "site", "priority", "created_at", "body", "attempt")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _shape(position: int, last: int) -> float:
    """Return which part of its peak the memory takes: it fills up fast, then comes and goes."""
    return 1.0 if position == last else 1 - 0.5 / (position + 1) - 0.04 * (position % 3)


def _time(seconds: float) -> datetime:
    """Return the time at the millisecond that MongoDB keeps."""
    return EPOCH + timedelta(milliseconds=int(seconds * 1000))


def _entry(status: str, minor: str, time: datetime) -> Document:
    return {"status": status, "minor_status": minor, "update": time}
