"""How long to go on trying, and how long to wait between two tries."""

import random
import time
from collections.abc import Iterator

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
LONGEST_ASKED = 30.0  # seconds: who asks for more gets another try after these


def growing_pauses(first: float, longest: float) -> Iterator[float]:
    """Yield pauses for ever, in the unit of ``first``: twice as long each time until ``longest``, each cut by chance.

    No two have the same: those that failed together must not return together.
    """
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        pause = min(2 * pause, longest)


class Patience:
    """A time limit over all tries, ``seconds`` from now on."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pauses = growing_pauses(FIRST_PAUSE, LONGEST_PAUSE)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._deadline - time.monotonic())

    def wait(self, asked: float = 0.0) -> bool:
        """Wait before the next try, and not less than ``asked`` for; False, without a wait, if time is up then."""
        pause = max(next(self._pauses), min(asked, LONGEST_ASKED) * random.uniform(1, 1.5))  # noqa: S311 - no secret
        if pause >= self.left:
            return False
        time.sleep(pause)
        return True
