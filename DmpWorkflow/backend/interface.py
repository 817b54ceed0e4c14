"""What a batch system must be able to do; one module implements it for each.

"No answer" is never "no jobs": a query that fails raises Unavailable.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus

NAME = re.compile(r"dwf-(?P<job>[0-9a-f]{24})-(?P<instance>\d+)-(?P<attempt>\d+)")


@dataclass(frozen=True, order=True)
class AttemptKey:
    """One attempt of one instance."""

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
    """A batch job to be: its name, its folder with the script to run, and what it needs."""

    key: AttemptKey
    folder: Path
    script: Path
    log: Path
    needs: BatchNeeds


@dataclass(frozen=True)
class Submitted:
    """What became of one submission: a batch id, or the batch system's words why not."""

    key: AttemptKey
    batch_id: str | None = None
    error: str = ""


@dataclass(frozen=True)
class BatchJob:
    """A job that the batch system knows now."""

    key: AttemptKey
    batch_id: str
    status: MajorStatus
    detail: str = ""


@dataclass(frozen=True)
class Ending:
    """How a job ended that is no longer in the queue; ``minor_status`` says why, if the batch system tells."""

    key: AttemptKey
    exit_code: int | None = None
    signal: int | None = None
    minor_status: str = ""


class Backend(ABC):
    """A batch system, as seen by the agent of one site."""

    name: ClassVar[str]
    batch_id_variable: ClassVar[str]  # where a job finds its own batch id

    @abstractmethod
    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Submit all, in as few calls as the system allows; a result for each, in their order."""

    @abstractmethod
    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return all our jobs that wait or run, by one call. Raises Unavailable if the system does not answer."""

    @abstractmethod
    def endings(self, keys: Sequence[AttemptKey]) -> Mapping[AttemptKey, Ending]:
        """Return how these jobs ended, as far as the system's history tells. Raises Unavailable."""

    @abstractmethod
    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """End these jobs; those that are over are no error. Raises Unavailable."""
