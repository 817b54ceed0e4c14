"""What a status report does to an instance, decided as a value. Pure: no database, no network."""

from dataclasses import dataclass
from enum import Enum

from DmpWorkflow.core.lifecycle import FINAL, MajorStatus, check_transition
from DmpWorkflow.utils.errors import Conflict


class StaleAttempt(Conflict):
    """The report is about an attempt that is no longer current; the payload must stop."""


class Outcome(Enum):
    """What becomes of a report that was not refused."""

    APPLY = "applied"  # it changes the instance
    REPEATED = "repeated"  # it was applied before, or a later one of the same runner was
    LATE = "late"  # it tells of an earlier stage than the one already known


@dataclass(frozen=True)
class InstanceState:
    """What the decision needs to know of an instance.

    ``handed_out`` is False from creation or roll-back until the next claim: no attempt is current then.
    ``lost`` marks a final status that was concluded from silence and not reported by the payload.
    """

    status: MajorStatus
    attempt: int = 0
    handed_out: bool = False
    sequence: int = -1
    runner: str | None = None
    lost: bool = False


@dataclass(frozen=True)
class Report:
    """One report about one attempt; ``sequence`` 0 is the agent's "Submitted", a runner counts from 1."""

    status: MajorStatus
    attempt: int
    sequence: int
    runner: str | None = None


def decide(state: InstanceState, report: Report) -> Outcome:
    """Say what ``report`` does to an instance in ``state``.

    Raises StaleAttempt for an old attempt or a second runner of the same attempt, and IllegalTransition for a
    change that the life cycle does not know.
    """
    _check_attempt(state, report)
    if report.sequence <= state.sequence:
        return Outcome.LATE if report.sequence == 0 and state.sequence > 0 else Outcome.REPEATED
    if state.lost and report.status in FINAL:
        return Outcome.APPLY
    check_transition(state.status, report.status)
    return Outcome.APPLY


def _check_attempt(state: InstanceState, report: Report) -> None:
    if not state.handed_out or report.attempt != state.attempt:
        current = state.attempt if state.handed_out else "none"
        raise StaleAttempt(f"attempt {report.attempt} is not current (current: {current}): stop")
    if report.runner and state.runner and report.runner != state.runner:
        raise StaleAttempt(f"attempt {report.attempt} was already started by another runner: stop")
