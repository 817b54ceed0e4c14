"""What a batch system must be able to do; one module implements it for each.

"No answer" is never "no jobs": a query that fails raises Unavailable.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus

NAME = re.compile(r"dwf-(?P<job>[0-9a-f]{24})-(?P<instance>[0-9]{1,18})-(?P<attempt>[0-9]{1,18})")


PROBE_ATTEMPT = 0  # of a job that only tests the site; those of instances count from 1


class AttemptKey(NamedTuple):
    """One attempt of one instance; a tuple, since an agent looks up ten thousands of them in each cycle."""

    job_id: str
    instance_id: int
    attempt: int

    @property
    def name(self) -> str:
        """The name of its batch job, fixed before it is submitted, from which the attempt can be read back."""
        return f"dwf-{self.job_id}-{self.instance_id}-{self.attempt}"

    @classmethod
    def from_name(cls, name: str) -> "AttemptKey | None":
        """Return the attempt that a batch job belongs to; None for a job that is not ours."""
        match = NAME.fullmatch(name)
        return cls(match["job"], int(match["instance"]), int(match["attempt"])) if match else None


@dataclass(frozen=True)
class Submission:
    """A batch job to be: run ``script`` with ``element``, which of its attempts that is, as the only argument.

    The script makes the work folder, and writes its output there.
    """

    key: AttemptKey
    script: Path
    element: int
    needs: BatchNeeds


@dataclass(frozen=True)
class Submitted:
    """What became of one submission: a batch id, or the batch system's words why not.

    ``later`` instead says that it could not be tried, or that nobody knows what became of it: the next cycle will.
    """

    key: AttemptKey
    batch_id: str | None = None
    error: str = ""
    later: str = ""


class BatchJob(NamedTuple):
    """A job that the batch system knows now; a tuple, for the same reason.

    ``held`` marks one that does not go on by itself; ``detail`` says why. CPU time and memory are given where the
    same query tells them.
    """

    key: AttemptKey
    batch_id: str
    status: MajorStatus
    detail: str = ""
    held: bool = False
    cpu_seconds: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a job ended that is no longer in the queue; ``minor_status`` says why, if the batch system tells."""

    key: AttemptKey
    exit_code: int | None = None
    signal: int | None = None
    minor_status: str = ""
    cpu_seconds: float | None = None
    memory_mb: float | None = None
    detail: str = ""

    @property
    def in_words(self) -> str:
        """What is known of how it ended, for people."""
        words = [f"exit code {self.exit_code}"] if self.exit_code is not None else []
        words += [f"signal {self.signal}"] if self.signal is not None else []
        words += [self.detail] if self.detail else []
        return ", ".join(words) or "nothing is known of how"


# The minor statuses with which a batch system ends jobs.
KILLED = "KilledByBatch"
KILLED_FOR_MEMORY = "KilledByBatchMemoryLimit"
KILLED_FOR_TIME = "KilledByBatchTimeLimit"
REMOVED = "RemovedFromBatch"
NODE_LOST = "NodeLost"
NOT_STARTED = "BatchCouldNotStart"
BY_FORCE = frozenset({KILLED, KILLED_FOR_MEMORY, KILLED_FOR_TIME, REMOVED})  # Terminated; others are Failed


class Backend(ABC):
    """A batch system, as seen by the agent of one site."""

    name: ClassVar[str]
    batch_id_variable: ClassVar[str]  # where a job finds its own batch id
    runs_images: ClassVar[bool] = False  # the batch system itself starts jobs in a container image

    @abstractmethod
    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Submit all, in as few calls as the system allows; a result for each, in their order."""

    @abstractmethod
    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return all our jobs that wait or run, by one call. Raises Unavailable if the system does not answer."""

    @abstractmethod
    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Return how these jobs ended, as far as the system's history tells. Raises Unavailable.

        ``jobs`` has their batch ids, "" where it is not known.
        """

    @abstractmethod
    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """End these jobs; those that are over are no error. Raises Unavailable."""

    def measure(self, jobs: Sequence[BatchJob]) -> Mapping[AttemptKey, BatchJob]:
        """Return running jobs with CPU time and memory; asks only where the query does not tell."""
        return {job.key: job for job in jobs}

    def programs(self) -> Sequence[str]:
        """Return the commands that it needs, on PATH or in HPCbin."""
        return ()

    def explain(self, jobs: Sequence[BatchJob]) -> Mapping[AttemptKey, str]:
        """Return why these jobs are held, where the query does not tell."""
        return {job.key: job.detail for job in jobs}
