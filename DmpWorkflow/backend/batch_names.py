"""Names of batch jobs, from which job, instance and attempt of each element can be read back. Pure.

``dwf-JOB-INSTANCES-ATTEMPT``, where INSTANCES is ``7`` or runs such as ``1+199_300_302+4`` (``1+199``: 1 to 200).
An array of more than one job or attempt joins such parts by dots. Element 1 of an array is the first one named.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from DmpWorkflow.backend.interface import AttemptKey

PREFIX = "dwf-"
NUMBER = "[0-9]{1,18}"
PART = re.compile(
    rf"(?P<job>[0-9a-f]{{24}})-(?P<runs>{NUMBER}(?:\+{NUMBER})?(?:_{NUMBER}(?:\+{NUMBER})?)*)-(?P<attempt>{NUMBER})"
)
ELEMENTS = re.compile(rf"({NUMBER})(?:-({NUMBER})(?::([1-9][0-9]{{0,17}}))?)?")
LONGEST_NAME = 200  # characters; OpenPBS takes 230
MOST_MEMBERS = 100_000  # of a name that we believe: somebody else's could claim billions


@dataclass(frozen=True)
class _Run:
    """Consecutive instances of one attempt of one job."""

    job_id: str
    attempt: int
    first: int
    count: int

    @property
    def text(self) -> str:
        return f"{self.first}+{self.count - 1}" if self.count > 1 else str(self.first)


def batch_name(keys: Sequence[AttemptKey]) -> str:
    """Return the name of a job, or of an array whose elements are ``keys`` in this order."""
    return _name(list(_runs(keys, len(keys))))


def members(name: str) -> tuple[AttemptKey, ...]:
    """Return the elements that a name stands for, in their order; none for a job that is not ours."""
    return _members(name) if name.startswith(PREFIX) else ()


def member(name: str, index: int | None) -> AttemptKey | None:
    """Return what element ``index`` (from 1; None for a job that is no array) of a batch job is."""
    found = members(name)
    position = (index or 1) - 1
    return found[position] if 0 <= position < len(found) else None


def elements(text: str) -> Iterator[int]:
    """Yield the elements in a batch system's ``3``, ``3-20`` or ``1,5-9:2``, as far as one of ours can have them.

    Raises ValueError for any other text.
    """
    for part in text.split(","):
        match = ELEMENTS.fullmatch(part.strip())
        if match is None:
            raise ValueError(text)
        yield from range(int(match[1]), min(int(match[2] or match[1]), MOST_MEMBERS) + 1, int(match[3] or 1))


def split_by_name(keys: Sequence[AttemptKey], most: int) -> Iterator[list[AttemptKey]]:
    """Split sorted keys into arrays of at most ``most`` elements whose names are not too long."""
    runs: list[_Run] = []
    for run in _runs(keys, most):
        if runs and (sum(item.count for item in runs) + run.count > most or len(_name([*runs, run])) > LONGEST_NAME):
            yield _keys(runs)
            runs = []
        runs.append(run)
    if runs:
        yield _keys(runs)


def _name(runs: Sequence[_Run]) -> str:
    parts = groupby(runs, key=lambda run: (run.job_id, run.attempt))
    return PREFIX + ".".join(
        f"{job}-{'_'.join(run.text for run in part)}-{attempt}" for (job, attempt), part in parts
    )


def _runs(keys: Sequence[AttemptKey], most: int) -> Iterator[_Run]:
    start = 0
    for position in range(1, len(keys) + 1):
        if position < len(keys) and position - start < most and _follows(keys[position - 1], keys[position]):
            continue
        first = keys[start]
        yield _Run(first.job_id, first.attempt, first.instance_id, position - start)
        start = position


def _follows(one: AttemptKey, other: AttemptKey) -> bool:
    return other == AttemptKey(one.job_id, one.instance_id + 1, one.attempt)


def _keys(runs: Sequence[_Run]) -> list[AttemptKey]:
    return [
        AttemptKey(run.job_id, number, run.attempt)
        for run in runs
        for number in range(run.first, run.first + run.count)
    ]


@lru_cache(maxsize=10_000)
def _members(name: str) -> tuple[AttemptKey, ...]:
    runs: list[_Run] = []
    for part in name.removeprefix(PREFIX).split("."):
        match = PART.fullmatch(part)
        if match is None:
            return ()
        for run in match["runs"].split("_"):
            first, _, more = run.partition("+")
            runs.append(_Run(match["job"], int(match["attempt"]), int(first), int(more or 0) + 1))
    return tuple(_keys(runs)) if sum(run.count for run in runs) <= MOST_MEMBERS else ()
