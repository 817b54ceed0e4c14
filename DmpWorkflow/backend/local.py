"""The local backend: payloads as processes of this machine, at most as many as there are slots.

The agent only writes job files and starts workers, which outlive it: that works from cron just as from a loop.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

import psutil

from DmpWorkflow.backend.interface import NOT_STARTED, AttemptKey, Backend, BatchJob, Ending, Submission, Submitted
from DmpWorkflow.backend.local_spool import Record, Spool, key_of, split_running
from DmpWorkflow.backend.local_worker import BATCH_ID_VARIABLE
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import ConfigurationError, Unavailable


class LocalBackend(Backend):
    """Runs jobs on this machine."""

    name: ClassVar[str] = "local"
    batch_id_variable: ClassVar[str] = BATCH_ID_VARIABLE

    def __init__(self, spool: Spool, slots: int) -> None:
        self.spool = spool
        self.slots = slots

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the backend with its queue in the site's workdir."""
        if not settings.site.workdir:
            raise ConfigurationError("[site] workdir is not set: the local backend keeps its queue there")
        return cls(Spool(Path(settings.site.workdir) / ".local"), settings.site.slots)

    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Queue all, and start workers for free slots."""
        self._prepare()
        results = [self._queue(submission) for submission in submissions]
        self._start_workers()
        return results

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the jobs that wait or run; one that vanished without a record is not among them."""
        self._prepare()
        jobs: dict[AttemptKey, BatchJob] = {}
        # In the order of a job's life: one that moves while we look is seen twice, and never missed.
        for stem, record in self.spool.records("queued"):
            jobs[key_of(record)] = BatchJob(key_of(record), stem, MajorStatus.SUBMITTED)
        if jobs:
            self._start_workers()  # a machine that was restarted has none
        for stem, record in self.spool.records("running"):
            batch_id, slot = split_running(stem)
            if not self.spool.is_free(slot):
                jobs[key_of(record)] = BatchJob(key_of(record), batch_id, MajorStatus.RUNNING)
        for _, record in self.spool.records("finished"):
            jobs.pop(key_of(record), None)
        return jobs

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Return how jobs ended, from the records of the workers."""
        return {
            key_of(record): _ending(record) for _, record in self.spool.records("finished") if key_of(record) in jobs
        }

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Take queued jobs out of the queue and send SIGTERM to running ones."""
        running = {split_running(stem)[0]: record for stem, record in self.spool.records("running")}
        for job in jobs:
            record = running.get(job.batch_id)
            if not self.spool.withdraw(job.batch_id) and record and "pid" in record:
                with suppress(ProcessLookupError):
                    os.kill(record["pid"], signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """End everything: the queue is emptied, jobs get SIGTERM and after ``seconds`` SIGKILL with all children."""
        for batch_id, _ in list(self.spool.records("queued")):
            self.spool.withdraw(batch_id)
        deadline = time.monotonic() + seconds
        self._signal_running(signal.SIGTERM)
        while not all(map(self.spool.is_free, range(self.slots))):
            if time.monotonic() > deadline:
                self._signal_running(signal.SIGKILL)
                deadline += seconds
            time.sleep(0.05)

    def _signal_running(self, number: signal.Signals) -> None:
        for stem, record in self.spool.records("running"):
            if "pid" not in record or self.spool.is_free(split_running(stem)[1]):
                continue
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(record["pid"])
                tree = process.children(recursive=True) if number is signal.SIGKILL else []
                for member in [process, *tree]:
                    member.send_signal(number)

    def _prepare(self) -> None:
        try:
            self.spool.prepare()
        except OSError as error:
            raise Unavailable(f"the queue {self.spool.folder} cannot be used: {error.strerror}") from error

    def _queue(self, submission: Submission) -> Submitted:
        name = submission.key.name  # is the id as well: a job that is submitted again after a crash is known
        record: Record = {
            "job_id": submission.key.job_id,
            "instance_id": submission.key.instance_id,
            "attempt": submission.key.attempt,
            "command": [str(submission.script), str(submission.element)],
            "queued_at": time.time(),
        }
        try:
            if not self.spool.knows(name):
                self.spool.queue(name, record)
        except OSError as error:
            return Submitted(submission.key, later=f"{self.spool.folder}: {error.strerror}")
        return Submitted(submission.key, batch_id=name)

    def _start_workers(self) -> None:
        """Start a worker for each free slot; it leaves us at once, so that nobody has to wait for it."""
        for slot in filter(self.spool.is_free, range(self.slots)):
            with (self.spool.folder / f"slot-{slot}.log").open("ab") as log:
                subprocess.run(  # noqa: S603 - our own argument list, no shell
                    [sys.executable, "-m", "DmpWorkflow.backend.local_worker", str(self.spool.folder), str(slot)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )


def _ending(record: Record) -> Ending:
    if "error" in record:
        return Ending(key_of(record), minor_status=NOT_STARTED, detail=record["error"])
    code: int | None = record.get("returncode")
    number = -code if code is not None and code < 0 else None
    minor = "KilledByBatch" if number or record.get("cancelled") else ""
    return Ending(key_of(record), None if number else code, number, minor)
