"""One cycle of the agent of a site: take what the server has, hand it to the batch system, tell what became of it."""

import logging
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import DmpWorkflow
from DmpWorkflow.backend import agent_reports, work_files
from DmpWorkflow.backend.interface import PROBE_ATTEMPT, AttemptKey, Backend, BatchJob, Submission, Submitted
from DmpWorkflow.backend.journal import Held, Journal
from DmpWorkflow.backend.outbox import outboxes
from DmpWorkflow.backend.reporter import Sender
from DmpWorkflow.client import Client
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.work_folder import number_as_path
from DmpWorkflow.utils.errors import Conflict, DmpWorkflowError, Unavailable

log = logging.getLogger(__name__)

CHUNK = 1000  # the most that the server takes in one request
HOLDS = 50_000  # in one request
MISSING_BEFORE_LOST = 2  # successful queries that do not find a job, before its history is asked
MOST_TOLD = 20  # refused reports in the log of one cycle
STANDING = (MajorStatus.SUSPENDED, MajorStatus.UNKNOWN)  # a set would ask each of many jobs for a hash

Json = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """How much to take: ``chunk`` in a cycle, to have ``in_system`` jobs, of which ``pending`` wait.

    A ``chunk`` of 0 takes nothing and leaves an interrupted claim as it is.
    """

    chunk: int = 100
    in_system: int | None = None
    pending: int | None = None

    @classmethod
    def of_site(cls, site: SiteSettings, chunk: int | None = None, in_system: int | None = None) -> "Limits":
        """Return the site's limits, with those that the command line gives instead."""
        return cls(
            site.hpc_chunk if chunk is None else chunk,
            site.hpc_max_jobs if in_system is None else in_system,
            site.hpc_max_pending,
        )

    def room(self, in_system: int, pending: int) -> int:
        """Return how many more may be taken now."""
        rooms = [self.chunk, CHUNK]
        rooms += [] if self.in_system is None else [self.in_system - in_system]
        rooms += [] if self.pending is None else [self.pending - pending]
        return max(0, min(rooms))


@dataclass
class CycleResult:
    """What a cycle did, for its user."""

    in_system: int = 0
    pending: int = 0
    claimed: int = 0
    submitted: int = 0
    deferred: int = 0
    adopted: int = 0
    cancelled: int = 0
    lost: int = 0
    delivered: int = 0
    problems: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """Return one line for people."""
        parts = {name: getattr(self, name) for name in ("deferred", "adopted", "cancelled", "lost", "delivered")}
        more = "".join(f", {number} {name}" for name, number in parts.items() if number)
        return f"{self.in_system} in the system, {self.claimed} claimed, {self.submitted} submitted{more}"


class Cycle:
    """One cycle and what it knows."""

    def __init__(self, settings: Settings, client: Client, backend: Backend, journal: Journal, python: str) -> None:
        self.settings = settings
        self.client = client
        self.backend = backend
        self.journal = journal
        self.python = python
        self._scripts = journal.folder / "scripts"
        self.over: set[AttemptKey] = set()
        self.repeated = journal.claim is not None  # an earlier cycle may have submitted some of it
        self.result = CycleResult()

    def run(self, limits: Limits) -> CycleResult:
        """Do all of it, in an order in which each step may fail or be the last."""
        self._deliver_kept_reports()
        with self._telling():
            jobs = dict(self.backend.query())
        for probe in [key for key in jobs if key.attempt == PROBE_ATTEMPT]:
            del jobs[probe]
        self.result.in_system = len(jobs)
        self.result.pending = [job.status for job in jobs.values()].count(MajorStatus.SUBMITTED)
        found_more = self._hold(jobs.values())
        answers = self._ask_server()
        self._follow(answers, jobs)
        if found_more or answers:
            self.journal.save()
        self._report_standing(jobs)
        self._remove_held(jobs)
        self._conclude_lost(jobs)
        self._discard()
        self._claim(limits, jobs)
        return self.result

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell the server of a batch system that does not answer; the cycle ends with that."""
        try:
            yield
        except Unavailable as error:
            self._beat(problem=str(error))
            raise

    def _deliver_kept_reports(self) -> None:
        """Deliver what payloads left; a payload that is still there delivers its own."""
        for outbox in outboxes(work_files.outbox_folder(self.settings)):
            send = Sender(outbox.delivery)
            self.result.delivered += outbox.deliver(send).sent

    def _hold(self, jobs: Iterable[BatchJob]) -> bool:
        """Take up jobs that are in the batch system under our names; say whether the journal did not know them so."""
        changed = False
        for job in jobs:
            held = self.journal.held.get(job.key)
            if held is None or held.missing:
                known = held or Held(job.key, job.batch_id)
                self.journal.held[job.key] = replace(known, missing=0, missing_since=None)
                changed = True
        return changed

    def _ask_server(self) -> dict[AttemptKey, str]:
        """Name all that is held; return the answers for what does not only go on."""
        answers: dict[AttemptKey, str] = {}
        keys = list(self.journal.held)
        for start in range(0, max(len(keys), 1), HOLDS):
            for row in self._beat(_grouped(keys[start : start + HOLDS])):
                answers |= {
                    AttemptKey(row["job_id"], number, row["attempt"]): row["answer"] for number in row["instances"]
                }
        return answers

    def _beat(self, holds: Sequence[Json] | None = None, problem: str | None = None) -> list[Json]:
        beat = {
            "site": self.settings.site.name,
            "agent": self.journal.agent,
            "hostname": socket.gethostname(),
            "version": DmpWorkflow.__version__,
        }
        return self.client.agent_heartbeat(beat | ({"problem": problem[:1000]} if problem else {}), holds)

    def _follow(self, answers: Mapping[AttemptKey, str], jobs: dict[AttemptKey, BatchJob]) -> None:
        """Do what the server answered for each that we hold."""
        adopt = [self.journal.held[key] for key, answer in answers.items() if answer == "adopt"]
        self._report([agent_reports.submitted(held.key, held.batch_id) for held in adopt])
        self.result.adopted += len(adopt)
        killed = [key for key, answer in answers.items() if answer == "kill"]
        over = [key for key, answer in answers.items() if answer in ("cancel", "unknown", "over")]
        for key in killed:
            self.journal.held[key].killed = True
        ending = [key for key in over if answers[key] == "over" and not self._was_over(key)]  # it has told its end
        self._cancel([jobs[key] for key in {*over, *killed} - {*ending} if key in jobs])
        for key in [key for key in over if key not in jobs]:  # the others are answered again in the next cycle
            self._drop(key)

    def _was_over(self, key: AttemptKey) -> bool:
        """Say whether an earlier cycle knew of the end, and note that this one does."""
        held = self.journal.held[key]
        before, held.over = held.over, True
        return before

    def _drop(self, key: AttemptKey) -> None:
        del self.journal.held[key]
        self.over.add(key)

    def _discard(self) -> None:
        """Remove the empty outboxes and the scripts of attempts that are over: each has a token."""
        names = {f"{key.job_id}-{key.instance_id}-{key.attempt}" for key in self.over}
        for outbox in outboxes(work_files.outbox_folder(self.settings)) if names else ():
            if outbox.folder.name in names:
                outbox.discard()
        self.journal.forget_lost()
        if not self.journal.claim:  # what an interrupted claim wrote may be in use
            work_files.discard_scripts(self._scripts, self.journal.may_start)

    def _cancel(self, jobs: Sequence[BatchJob]) -> None:
        if jobs:
            with self._telling():
                self.backend.cancel(jobs)
            self.result.cancelled += len(jobs)

    def _report_standing(self, jobs: Mapping[AttemptKey, BatchJob]) -> None:
        """Report what was held or went on since the last cycle; payloads cannot."""
        changed = []
        for key, job in jobs.items():
            held = self.journal.held[key]
            stands = job.status in STANDING
            if stands != (held.held_since is not None):
                held.held_since = int(time.time()) if stands else None
                changed.append(job)
        if changed:
            with self._telling():
                reasons = self.backend.explain([job for job in changed if job.status in STANDING])
            told = [job._replace(detail=reasons.get(job.key, job.detail)) for job in changed]
            self._report([agent_reports.standing(job) for job in told])
            for job in told:
                self.journal.held[job.key].reason = job.detail
            self.journal.save()

    def _remove_held(self, jobs: Mapping[AttemptKey, BatchJob]) -> None:
        """Remove jobs that were on hold for too long, and report them with the reason."""
        limit = self.settings.site.hpc_hold_seconds
        now = time.time()
        stuck = [
            self.journal.held[key]
            for key, job in jobs.items()
            if job.held and now - (self.journal.held[key].held_since or now) >= limit
        ]
        if stuck:
            self._cancel([jobs[held.key] for held in stuck])
            self._report(
                [
                    agent_reports.removed_for_holding(held.key, held.reason, now - (held.held_since or now))
                    for held in stuck
                ]
            )

    def _conclude_lost(self, jobs: Mapping[AttemptKey, BatchJob]) -> None:
        """Report what successful queries did not find any more, after the history was asked as well.

        What the history does not tell is given the site's grace time.
        """
        gone = [held for key, held in self.journal.held.items() if key not in jobs]
        now = time.time()
        for held in gone:
            held.missing += 1
            held.missing_since = min(held.missing_since or now, now)  # the clock may have been ahead
        killed = [held for held in gone if held.killed]
        missed = [held for held in gone if not held.killed and held.missing >= MISSING_BEFORE_LOST]
        with self._telling():
            endings = self.backend.endings({held.key: held.batch_id for held in missed}) if missed else {}
        grace = self.settings.site.hpc_grace_seconds
        lost = [held for held in missed if held.key in endings or now - (held.missing_since or now) >= grace]
        reports = [agent_reports.lost(held, endings.get(held.key), self._output(held.key)) for held in lost]
        self._report(reports + [agent_reports.killed(held.key) for held in killed])
        self.result.lost += len(lost)
        self.journal.lost |= {held.key: int(now) for held in lost}
        for held in [*lost, *killed]:
            self._drop(held.key)
        if gone:
            self.journal.save()

    def _output(self, key: AttemptKey) -> str:
        """Return the end of what a payload wrote, if we know where it did."""
        folder = self.journal.folders.get(key.job_id)
        return work_files.last_lines(Path(folder) / number_as_path(key.instance_id)) if folder else ""

    def _claim(self, limits: Limits, jobs: Mapping[AttemptKey, BatchJob]) -> None:
        """Take new work, or go on with a claim that was interrupted."""
        claim = self.journal.claim
        if limits.chunk < 1:
            return
        if claim is None:
            room = limits.room(self.result.in_system, self.result.pending)
            if room < 1:
                return
            claim = self.journal.open_claim(room)
        try:
            work = self.client.claim(
                self.settings.site.name, claim.limit, agent=self.journal.agent, request_id=claim.request_id
            )
        except Conflict:
            self.journal.close_claim()  # the journal was copied: that claim is another agent's
            raise
        self.result.claimed = len(work["instances"])
        self._submit(work, jobs)
        if not self.result.deferred:
            self.journal.close_claim()

    def _submit(self, work: Json, jobs: Mapping[AttemptKey, BatchJob]) -> None:
        """Submit what is not in the batch system yet, note it, and report it."""
        known = self._already_submitted(work["instances"], jobs)
        submissions, refused, later = self._prepare(work, known)
        results = [*known.values(), *later, *(self.backend.submit(submissions) if submissions else ())]
        accepted = [result for result in results if result.batch_id]
        for result in accepted:
            self.journal.held.setdefault(result.key, Held(result.key, str(result.batch_id)))
        self.journal.save()
        self.result.submitted = len(accepted)
        refused += [agent_reports.refused(result.key, result.error) for result in results if result.error]
        self._defer([result for result in results if result.later])
        self.result.problems += [str(report["log"]) for report in refused]
        told = [agent_reports.submitted(result.key, str(result.batch_id)) for result in accepted]
        self._report(told + refused)

    def _defer(self, results: Sequence[Submitted]) -> None:
        """Keep the claim open for what could not be submitted; the server takes back what stays so for too long."""
        self.result.deferred = len(results)
        if results:
            log.warning("%d are left for the next cycle: %s", len(results), results[0].later)
            self._beat(problem=results[0].later)

    def _already_submitted(
        self, instances: Sequence[Json], jobs: Mapping[AttemptKey, BatchJob]
    ) -> dict[AttemptKey, Submitted]:
        """Return what of a repeated claim an earlier cycle submitted, by the queue, the journal or the history."""
        keys = [_key(instance) for instance in instances]
        known = {key: Submitted(key, jobs[key].batch_id) for key in keys if key in jobs}
        known |= {key: Submitted(key, held.batch_id) for key in keys if (held := self.journal.held.get(key))}
        reported = {_key(instance) for instance in instances if instance["lease_expires"] is None}
        with self._telling():
            ended = self.backend.endings({key: "" for key in keys if key not in known}) if self.repeated else {}
        return known | {
            key: Submitted(key, key.name) for key in keys if key in reported | ended.keys() - known.keys()
        }

    def _prepare(
        self, work: Json, known: Mapping[AttemptKey, Submitted]
    ) -> tuple[list[Submission], list[Json], list[Submitted]]:
        """Write the scripts; return what to submit, reports of what cannot be, and what must wait for a disk."""
        by_definition: defaultdict[str, dict[AttemptKey, Json]] = defaultdict(dict)
        for instance in work["instances"]:
            if (key := _key(instance)) not in known:
                by_definition[instance["definition"]][key] = instance
        submissions: list[Submission] = []
        failed: dict[AttemptKey, DmpWorkflowError] = {}
        for name, instances in by_definition.items():
            definition = work["definitions"][name]
            try:
                prepared = work_files.prepare(
                    definition, instances, self.settings, self.backend, self._scripts, self.python
                )
            except DmpWorkflowError as error:
                failed |= dict.fromkeys(instances, error)
                continue
            submissions += prepared.submissions
            self.journal.folders |= {key.job_id: str(prepared.folder) for key in instances}
            failed |= prepared.failed
            for warning in prepared.warnings:
                log.warning("%s: %s", definition["title"], warning)
        refused: list[Json] = []
        later: list[Submitted] = []
        for key, reason in failed.items():
            if isinstance(reason, Unavailable):
                later.append(Submitted(key, later=str(reason)))
            else:
                refused.append(agent_reports.refused(key, str(reason)))
        return submissions, refused, later

    def _report(self, reports: Sequence[Json]) -> None:
        """Report in bulk; what the server does not want to run any more is cancelled by the next cycle's answers.

        Raises Unavailable if it could not apply all of them: the next cycle tells them again.
        """
        results = self.client.report_many(reports)
        pairs = zip(reports, results, strict=True)
        refused = [(report, result) for report, result in pairs if result["result"] != "ok"]
        for report, result in refused[:MOST_TOLD]:
            log.warning("%s/%s: %s", report["t_id"], report["inst_id"], result["error"])
        if len(refused) > MOST_TOLD:
            log.warning("%d more reports were refused", len(refused) - MOST_TOLD)
        if any(result.get("status") == Unavailable.http_status for result in results):
            raise Unavailable("the server did not apply all reports: the next cycle sends them again")


def _key(instance: Json) -> AttemptKey:
    """Return whose work this is; raises Unavailable for what cannot be a key: it becomes part of names of files."""
    try:
        key = AttemptKey(instance["job_id"], instance["instance_id"], instance["attempt"])
        if AttemptKey.from_name(key.name) == key:
            return key
    except (KeyError, TypeError):
        pass
    raise Unavailable(f"the server hands out what is no work: {str(instance)[:200]!r}: is it of our version?")


def _grouped(keys: Iterable[AttemptKey]) -> list[Json]:
    """Return attempts as they travel, those of one job and one number together."""
    groups: dict[tuple[str, int], list[int]] = {}
    for key in keys:
        groups.setdefault((key.job_id, key.attempt), []).append(key.instance_id)
    return [{"job_id": job, "attempt": attempt, "instances": ids} for (job, attempt), ids in groups.items()]
