"""What a status report does to an instance, decided as a value. Pure: no database, no network."""

from dataclasses import dataclass
from enum import Enum

from DmpWorkflow.core.lifecycle import FINAL, IllegalTransition, MajorStatus, check_transition
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
    """One report about one attempt.

    ``sequence`` 0 is the agent's "Submitted", a runner counts from 1, and None is a report that stands outside
    that order: of an old client, or an agent's own conclusion. Old clients know no ``attempt`` either.
    """

    status: MajorStatus
    attempt: int | None = None
    sequence: int | None = None
    runner: str | None = None


def is_implicit_claim(state: InstanceState, report: Report) -> bool:
    """Say whether an old client reports the submission of an instance that nobody has claimed."""
    return report.attempt is None and not state.handed_out and report.status is MajorStatus.SUBMITTED


def is_of_payload(report: Report) -> bool:
    """Say whether the payload itself tells this, and nobody concludes it."""
    return report.sequence is not None or report.attempt is None


def decide(state: InstanceState, report: Report) -> Outcome:
    """Say what ``report`` does to an instance in ``state``.

    Raises StaleAttempt for an old attempt or a second runner of the same attempt, and IllegalTransition for a
    change that the life cycle does not know.
    """
    if report.status is MajorStatus.NEW:
        raise IllegalTransition(state.status, report.status)
    if not is_implicit_claim(state, report):
        _check_attempt(state, report)
    if report.sequence is not None and report.sequence <= state.sequence:
        return Outcome.LATE if report.sequence == 0 and state.sequence > 0 else Outcome.REPEATED
    if report.status is MajorStatus.SUBMITTED and state.status in (MajorStatus.RUNNING, MajorStatus.SUSPENDED):
        return Outcome.LATE
    if state.lost and state.status in FINAL and is_of_payload(report):
        # It was silent and not gone: what it ends with still counts, and until then it may go on.
        return Outcome.APPLY if report.status in FINAL else Outcome.LATE
    if report.status is state.status and state.status in FINAL:
        return Outcome.REPEATED
    check_transition(state.status, report.status)
    return Outcome.APPLY


def _check_attempt(state: InstanceState, report: Report) -> None:
    if not state.handed_out or report.attempt not in (None, state.attempt):
        current = state.attempt if state.handed_out else "none"
        named = "the report's attempt" if report.attempt is None else f"attempt {report.attempt}"
        raise StaleAttempt(f"{named} is not current (current: {current}): stop")
    if report.runner and state.runner and report.runner != state.runner:
        raise StaleAttempt(f"attempt {report.attempt} was already started by another runner: stop")
