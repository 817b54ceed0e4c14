"""The plan of faults: what breaks when, and for how long. The same seed gives the same plan."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can break."""

    KILL_PRIMARY = "kill primary"
    KILL_MEMBER = "kill member"
    FREEZE_PRIMARY = "freeze primary"
    FREEZE_MEMBER = "freeze member"
    STEP_DOWN = "step down"
    KILL_SERVER = "kill server"
    FREEZE_SERVER = "freeze server"
    RESTART_SERVER = "restart server"
    KILL_AGENT = "kill agent"
    FREEZE_AGENT = "freeze agent"
    RESTART_AGENT = "restart agent"
    CRASH_NODE = "crash node"
    KILL_WRAPPER = "kill wrapper"
    FREEZE_WRAPPER = "freeze wrapper"
    KILL_PAYLOAD = "kill payload"
    KILL_WORKER = "kill worker"
    CUT = "cut connections"
    DELAY = "delay connections"
    LOSE = "lose replies"
    FILL_DISK = "fill disk"
    CLOCK_OF_AGENT = "clock of agent"
    CLOCK_OF_SERVER = "clock of server"
    ROLL_BACK = "roll back"
    KILL_ORDER = "kill order"


@dataclass(frozen=True)
class Fault:
    """A fault that begins ``at`` so many seconds and stays for ``seconds``; ``pick`` (0 to 1) chooses its target."""

    at: float
    kind: Kind
    seconds: float
    pick: float


FIRST = 5.0  # seconds without a fault
PAUSE = (0.5, 2.5)  # seconds between two
LASTING = {
    Kind.KILL_PRIMARY: (1, 6), Kind.KILL_MEMBER: (1, 6), Kind.FREEZE_PRIMARY: (3, 10), Kind.FREEZE_MEMBER: (2, 8),
    Kind.KILL_SERVER: (0, 4), Kind.FREEZE_SERVER: (2, 10), Kind.RESTART_SERVER: (0, 2),
    Kind.KILL_AGENT: (0, 4), Kind.FREEZE_AGENT: (1, 6), Kind.RESTART_AGENT: (0, 2), Kind.CRASH_NODE: (0, 4),
    Kind.FREEZE_WRAPPER: (1, 8), Kind.CUT: (1, 8), Kind.DELAY: (3, 10), Kind.FILL_DISK: (3, 10),
    Kind.CLOCK_OF_AGENT: (5, 20), Kind.CLOCK_OF_SERVER: (5, 15),
}  # fmt: skip
OFTEN = {Kind.LOSE: 4, Kind.KILL_WRAPPER: 3, Kind.KILL_AGENT: 2, Kind.STEP_DOWN: 2, Kind.KILL_PRIMARY: 2}


def plan(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a campaign in their order; none stays beyond ``seconds``. Each kind comes early once."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    first, more = list(Kind), [kind for kind in Kind for _ in range(OFTEN.get(kind, 1))]
    dice.shuffle(first)
    faults, at = [], FIRST
    while at < seconds:
        kind = first.pop() if first else dice.choice(more)
        lasts = dice.uniform(*LASTING.get(kind, (0, 0)))
        faults.append(Fault(round(at, 2), kind, round(min(lasts, seconds - at), 2), round(dice.random(), 4)))
        at += dice.uniform(*PAUSE)
    return faults
