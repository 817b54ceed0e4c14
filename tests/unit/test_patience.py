import time

import pytest

from DmpWorkflow.utils import patience
from DmpWorkflow.utils.patience import LONGEST_ASKED, LONGEST_PAUSE, Patience


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_pauses_grow_to_a_limit_and_end_before_the_time_does(clock: Clock) -> None:
    tries = Patience(300)
    while tries.wait():
        pass
    assert clock.pauses[0] <= patience.FIRST_PAUSE < clock.pauses[3] < max(clock.pauses) <= LONGEST_PAUSE
    assert 300 - LONGEST_PAUSE <= clock.now - 1000 < 300


def test_no_two_wait_alike(clock: Clock) -> None:
    for _ in range(20):
        Patience(300).wait()
        Patience(300).wait(asked=5)
    assert len(set(clock.pauses)) == 40


def test_what_the_server_asks_for_is_the_least_within_reason(clock: Clock) -> None:
    tries = Patience(300)
    assert tries.wait(asked=5) and tries.wait(asked=86400)
    assert 5 <= clock.pauses[0] <= 7.5
    assert LONGEST_ASKED <= clock.pauses[1] <= 1.5 * LONGEST_ASKED


def test_no_patience_is_one_try(clock: Clock) -> None:
    assert not Patience(0).wait()
    assert clock.pauses == []
