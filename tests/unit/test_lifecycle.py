import pytest

from DmpWorkflow.core.lifecycle import (
    ACTIVE,
    FINAL,
    TRANSITIONS,
    IllegalTransition,
    MajorStatus,
    check_transition,
)


def test_every_status_is_new_active_or_final_and_has_a_row() -> None:
    assert {MajorStatus.NEW} | ACTIVE | FINAL == set(MajorStatus)
    assert set(TRANSITIONS) == set(MajorStatus)


@pytest.mark.parametrize("current", sorted(FINAL))
@pytest.mark.parametrize("wanted", sorted(MajorStatus))
def test_a_final_status_changes_by_no_report(current: MajorStatus, wanted: MajorStatus) -> None:
    if wanted is current:
        check_transition(current, wanted)
        return
    with pytest.raises(IllegalTransition, match=f"{current} cannot become {wanted}"):
        check_transition(current, wanted)


@pytest.mark.parametrize("current", sorted(MajorStatus))
def test_no_report_leads_back_to_new(current: MajorStatus) -> None:
    assert MajorStatus.NEW not in TRANSITIONS[current]


def test_running_does_not_go_back_to_submitted_but_a_suspended_one_may() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(MajorStatus.RUNNING, MajorStatus.SUBMITTED)
    check_transition(MajorStatus.SUSPENDED, MajorStatus.SUBMITTED)
