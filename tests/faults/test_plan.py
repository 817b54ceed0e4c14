"""The plan of faults, which a seed must bring back."""

from tests.faults.injector import FAULTS
from tests.faults.plan import Kind, plan


def test_a_seed_gives_its_plan_again() -> None:
    assert plan(7, 120) == plan(7, 120) != plan(8, 120)


def test_two_minutes_have_every_kind_and_all_is_mended_in_time() -> None:
    faults = plan(7, 120)
    assert {fault.kind for fault in faults} == set(Kind) == set(FAULTS)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert max(fault.at + fault.seconds for fault in faults) <= 120.01
