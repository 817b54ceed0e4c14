import pytest

from DmpWorkflow.core.lifecycle import IllegalTransition, MajorStatus
from DmpWorkflow.core.reports import InstanceState, Outcome, Report, StaleAttempt, decide

CLAIMED = InstanceState(MajorStatus.NEW, attempt=1, handed_out=True)
RUNNING = InstanceState(MajorStatus.RUNNING, attempt=1, handed_out=True, sequence=2, runner="r1")
DONE = InstanceState(MajorStatus.DONE, attempt=1, handed_out=True, sequence=3, runner="r1")


def test_the_agents_submission_confirms_the_claim() -> None:
    assert decide(CLAIMED, Report(MajorStatus.SUBMITTED, 1, 0)) is Outcome.APPLY


def test_a_payload_may_report_before_its_agent_and_the_agents_report_is_late_then() -> None:
    assert decide(CLAIMED, Report(MajorStatus.RUNNING, 1, 1, "r1")) is Outcome.APPLY
    assert decide(RUNNING, Report(MajorStatus.SUBMITTED, 1, 0)) is Outcome.LATE
    assert decide(RUNNING, Report(MajorStatus.SUBMITTED)) is Outcome.LATE


def test_repeating_a_report_changes_nothing() -> None:
    assert decide(RUNNING, Report(MajorStatus.RUNNING, 1, 2, "r1")) is Outcome.REPEATED
    assert decide(DONE, Report(MajorStatus.DONE, 1, 3, "r1")) is Outcome.REPEATED


def test_a_late_running_does_not_win_over_done() -> None:
    assert decide(DONE, Report(MajorStatus.RUNNING, 1, 2, "r1")) is Outcome.REPEATED
    with pytest.raises(IllegalTransition, match="Done cannot become Running"):
        decide(DONE, Report(MajorStatus.RUNNING, 1, 4, "r1"))


@pytest.mark.parametrize("attempt", [0, 2])
def test_another_attempt_is_told_to_stop(attempt: int) -> None:
    with pytest.raises(StaleAttempt, match=f"attempt {attempt} is not current"):
        decide(RUNNING, Report(MajorStatus.DONE, attempt, 9, "r1"))


def test_after_a_roll_back_no_attempt_is_current() -> None:
    rolled_back = InstanceState(MajorStatus.NEW, attempt=1, handed_out=False)
    with pytest.raises(StaleAttempt, match="current: none"):
        decide(rolled_back, Report(MajorStatus.DONE, 1, 9, "r1"))


def test_a_second_runner_of_the_same_attempt_is_told_to_stop() -> None:
    with pytest.raises(StaleAttempt, match="another runner"):
        decide(RUNNING, Report(MajorStatus.RUNNING, 1, 3, "r2"))


def test_a_genuine_success_is_accepted_after_the_instance_was_thought_lost() -> None:
    lost = InstanceState(MajorStatus.FAILED, attempt=1, handed_out=True, sequence=2, runner="r1", lost=True)
    assert decide(lost, Report(MajorStatus.DONE, 1, 3, "r1")) is Outcome.APPLY
    assert decide(lost, Report(MajorStatus.RUNNING, 1, 3, "r1")) is Outcome.LATE  # so that it goes on until then
    assert decide(lost, Report(MajorStatus.DONE)) is Outcome.APPLY  # of an old client
    with pytest.raises(IllegalTransition):
        decide(lost, Report(MajorStatus.RUNNING, 1))  # what somebody concludes revives nothing


def test_an_old_client_claims_by_reporting_its_submission_and_by_nothing_else() -> None:
    unclaimed = InstanceState(MajorStatus.NEW)
    assert decide(unclaimed, Report(MajorStatus.SUBMITTED)) is Outcome.APPLY
    with pytest.raises(StaleAttempt, match="not current"):
        decide(unclaimed, Report(MajorStatus.RUNNING))


def test_an_old_client_may_repeat_its_last_report_but_not_take_it_back() -> None:
    assert decide(DONE, Report(MajorStatus.DONE)) is Outcome.REPEATED
    with pytest.raises(IllegalTransition, match="Done cannot become Failed"):
        decide(DONE, Report(MajorStatus.FAILED))


def test_new_is_ordered_by_a_roll_back_and_never_reported() -> None:
    with pytest.raises(IllegalTransition):
        decide(CLAIMED, Report(MajorStatus.NEW, 1, 1))
