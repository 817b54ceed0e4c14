"""Which failures are retried, and after which pause."""

from datetime import timedelta

import pytest

from DmpWorkflow.core.retries import FailureClass, RetryPolicy, failure_class, pause_before, words_of
from DmpWorkflow.utils.errors import InvalidInput


@pytest.mark.parametrize(
    ("minor_status", "expected"),
    [
        ("ApplicationExitCode5", FailureClass.PAYLOAD),
        ("ExceedingMemory", FailureClass.LIMITS),
        ("KilledByBatchTimeLimit", FailureClass.LIMITS),
        ("LostContact", FailureClass.LOST),
        ("BatchJobVanished", FailureClass.LOST),
        ("KilledByBatch", FailureClass.SITE),
        ("NoSuchFileOrDirectory", FailureClass.SITE),
        ("SubmissionFailed", FailureClass.SITE),
        ("KilledByUser", None),
    ],
)
def test_what_a_failure_is_blamed_on(minor_status: str, expected: FailureClass | None) -> None:
    assert failure_class(minor_status) is expected


def test_pauses_grow_up_to_a_limit_and_end_with_the_retries() -> None:
    policy = RetryPolicy(retries=30)
    pauses = [pause_before(policy, retried, "KilledByBatch") for retried in range(31)]
    assert pauses[30] is None
    minutes = [pause / timedelta(minutes=1) for pause in pauses[:30] if pause is not None]
    assert len(minutes) == 30
    assert 1.5 <= minutes[0] <= 2.5 and 12 <= minutes[3] <= 20
    assert all(270 <= pause <= 450 for pause in minutes[10:])


def test_a_policy_covers_classes_and_details() -> None:
    assert pause_before(RetryPolicy(1), 0, "ApplicationExitCode3") is None
    assert pause_before(RetryPolicy(1), 0, "LostContact")
    assert pause_before(RetryPolicy(1, ["payload"]), 0, "ApplicationExitCode3")
    assert pause_before(RetryPolicy(1, ["payload"]), 0, "LostContact") is None
    assert pause_before(RetryPolicy(1, ["ApplicationExitCode3"]), 0, "ApplicationExitCode3")
    assert pause_before(RetryPolicy(1, ["ApplicationExitCode3"]), 0, "ApplicationExitCode4") is None
    assert pause_before(RetryPolicy(9, list(FailureClass)), 0, "KilledByUser") is None


def test_words_of_a_policy_are_checked() -> None:
    assert words_of(" site, lost,ExceedingMemory,site ") == ["site", "lost", "ExceedingMemory"]
    with pytest.raises(InvalidInput, match="'sites': expected site, payload, limits, lost, or a detail"):
        words_of("sites")
