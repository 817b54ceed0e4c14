"""How far jobs are, how fast they go, and when they will end at this pace."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId

from DmpWorkflow.core.database import activity, clock, counts, distributions
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.lifecycle import FINAL


@dataclass(frozen=True)
class Progress:
    """A job's instances that are over, of all; the pace of the last six hours; ``events`` of those that are Done."""

    over: int
    total: int
    per_hour: float
    expected_end: datetime | None  # None: nothing is left, or nothing moves
    events: int

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.over / self.total if self.total else 0.0


def of_jobs(database: Database, jobs: Sequence[ObjectId]) -> dict[ObjectId, Progress]:
    """Return the progress of each job; the same few queries for any number of instances."""
    totals = counts.of_jobs(database, jobs)
    paces = activity.ended_per_hour(database, jobs)
    events = distributions.events(database, jobs)
    return {job: _progress(totals[job], paces.get(job, 0.0), events.get(job, 0)) for job in jobs}


def _progress(total: counts.Counts, per_hour: float, events: int) -> Progress:
    over, everything = sum(total[status] for status in FINAL), sum(total.values())
    left = everything - over
    expected = clock.now() + timedelta(hours=min(left / per_hour, 24 * 3650)) if left and per_hour else None
    return Progress(over, everything, per_hour, expected, events)
