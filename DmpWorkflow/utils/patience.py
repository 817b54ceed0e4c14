"""How long to go on trying, and how long to wait between two tries."""

import random
import time

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
LONGEST_ASKED = 30.0  # seconds: who asks for more gets another try after these


class Patience:
    """A time limit over all tries, ``seconds`` from now on."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._deadline - time.monotonic())

    def wait(self, asked: float = 0.0) -> bool:
        """Wait before the next try, and not less than ``asked`` for; False, without a wait, if time is up then.

        The pauses grow, and no two clients have the same: those that failed together must not return together.
        """
        pause = max(self._pause * random.uniform(0.5, 1), min(asked, LONGEST_ASKED) * random.uniform(1, 1.5))  # noqa: S311 - no secret
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if pause >= self.left:
            return False
        time.sleep(pause)
        return True
