"""When a failed instance starts again by itself. Pure: no database, no network."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from DmpWorkflow.utils.errors import InvalidInput

MOST_RETRIES = 100
MOST_WORDS = 20
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=2), timedelta(hours=6)
SPREAD = 0.25  # share of a pause by which it varies, so that what failed together does not come back together


class FailureClass(StrEnum):
    """What a failure is blamed on, which is what a retry may change."""

    SITE = "site"  # staging, submission, batch system, worker node
    PAYLOAD = "payload"  # the payload ended with an exit code
    LIMITS = "limits"  # it used more CPU time or memory than it asked for
    LOST = "lost"  # nothing was heard of it any more


DEFAULT_CLASSES = (FailureClass.SITE, FailureClass.LOST)

# Minor statuses of a Failed or Terminated instance; what is in none of these, and no exit code, is the site's.
BY_A_PERSON = frozenset({"KilledByUser", "ReceivedKillCommand"})
OF_LIMITS = frozenset(
    {"ExceedingCpuTime", "ExceedingMemory", "KilledByWatchDog", "KilledByBatchMemoryLimit", "KilledByBatchTimeLimit"}
)
OF_LOSS = frozenset({"LostContact", "AgentLost", "KilledByReaper", "BatchJobVanished", "PayloadGaveNoReport"})
OF_PAYLOAD = "ApplicationExitCode"  # and the code


@dataclass(frozen=True)
class RetryPolicy:
    """How often an instance may start again, after which classes of failure or minor statuses."""

    retries: int = 0
    retry_on: Sequence[str] = ()

    def covers(self, failure: FailureClass, minor_status: str) -> bool:
        """Say whether this kind of failure is one to retry."""
        words = self.retry_on or DEFAULT_CLASSES
        return failure in words or minor_status in words


def failure_class(minor_status: str) -> FailureClass | None:
    """Return what a failure with this minor status is blamed on; None if a person wanted the end."""
    if minor_status in BY_A_PERSON:
        return None
    if minor_status in OF_LIMITS:
        return FailureClass.LIMITS
    if minor_status in OF_LOSS:
        return FailureClass.LOST
    return FailureClass.PAYLOAD if minor_status.startswith(OF_PAYLOAD) else FailureClass.SITE


def pause_before(policy: RetryPolicy, retried: int, minor_status: str) -> timedelta | None:
    """Return how long to wait before an instance starts again that was ``retried`` before; None: it does not.

    Pauses double from one to the next.
    """
    failure = failure_class(minor_status)
    if failure is None or retried >= policy.retries or not policy.covers(failure, minor_status):
        return None
    pause = min(FIRST_PAUSE * 2.0 ** min(retried, 20), LONGEST_PAUSE)
    return pause * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - spreads load, guards nothing


def checked_words(words: Sequence[str]) -> list[str]:
    """Return the words of a policy, each once; raises InvalidInput for one that is no class and no minor status."""
    for word in words:
        if word not in list(FailureClass) and not (word[:1].isupper() and word.isascii() and word.isalnum()):
            classes = ", ".join(FailureClass)
            raise InvalidInput(f"retry-on: {word[:40]!r}: expected {classes}, or a detail like ApplicationExitCode3")
    if len(unique := list(dict.fromkeys(words))) > MOST_WORDS:
        raise InvalidInput(f"retry-on: {len(unique)} words, at most {MOST_WORDS}")
    return unique


def words_of(text: str) -> list[str]:
    """Return the comma-separated words, checked."""
    return checked_words([word.strip() for word in text.split(",") if word.strip()])
