"""The checker finds what it is there for: evidence without a fault, and then with one of each kind."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.checker import TRACE, Acknowledged, Evidence, check
from tests.faults.ledger import Attempt, Entry
from tests.faults.work import WRONG_INPUT, Kind

PARENT, CHILD, FAILING = "parent", "child", "failing"
FILE = "/store/000001.dat"
JOBS = {
    PARENT: Acknowledged("simulation", Kind.PARENT, "north", 1, files=(FILE,)),
    CHILD: Acknowledged("reconstruction", Kind.CHILD, "north", 1, parent=PARENT),
    FAILING: Acknowledged("broken", Kind.FAILING, "south", 1),
}
COUNTED = {PARENT: {"Done": 1}, CHILD: {"Done": 1}, FAILING: {"Failed": 1}}


def an_instance(status: str = "Done", minor: str = "ApplicationComplete", **more: Any) -> dict[str, Any]:
    begun = {"status": status, "minor_status": minor, "attempt": 1, "handed_out": True, "started_at": "today"}
    return begun | more


def an_attempt(job: str, number: int = 1, attempt: int = 1) -> Attempt:
    return job, number, attempt


def a_run(job: str, code: int = 0, agent: str = "north-a", attempt: int = 1) -> list[Entry]:
    return [Entry(word, number, (job, 1, attempt), 4711, agent) for word, number in (("start", 0), ("end", code))]


KEPT = Evidence(
    jobs=JOBS,
    ledger=[*a_run(PARENT), *a_run(CHILD), *a_run(FAILING, 3, "south-a")],
    instances={
        (PARENT, 1): an_instance(),
        (CHILD, 1): an_instance(),
        (FAILING, 1): an_instance("Failed", "ApplicationExitCode3"),
    },
    counted=COUNTED,
    fresh=COUNTED,
    catalogue=frozenset({("north", FILE)}),
    taken={"north-a": frozenset({(PARENT, 1, 1), (CHILD, 1, 1)}), "south-a": frozenset({(FAILING, 1, 1)})},
    outputs={"agent.log": "ERROR the server does not answer"},
    refused=["nonsense"],
    titles=frozenset({"simulation", "reconstruction", "broken"}),
)


def test_promises_that_are_kept() -> None:
    assert check(KEPT) == []


def doctored(job: str, **changes: Any) -> Evidence:
    """Return the evidence with another state of a job's instance."""
    return replace(KEPT, instances={**KEPT.instances, (job, 1): {**KEPT.instances[job, 1], **changes}})


BROKEN = [
    (1, "came to north-a and north-b", replace(KEPT, taken={**KEPT.taken, "north-b": frozenset({(CHILD, 1, 1)})})),
    (2, "started 2 times", replace(KEPT, ledger=[*KEPT.ledger, a_run(PARENT)[0]])),
    (2, "never handed out", replace(KEPT, ledger=[*KEPT.ledger, a_run(PARENT, attempt=2)[0]])),
    (2, "does not know of it", doctored(PARENT, started_at=None)),
    (3, "was not delivered", replace(KEPT, kept=["outbox/00000002-r.json"])),
    (
        3,
        "ended with exit code 0, and is Failed",
        doctored(CHILD, status="Failed", minor_status="PayloadGaveNoReport"),
    ),
    (3, "ended with exit code 3, and is Failed", doctored(FAILING, minor_status="ApplicationExitCode9")),
    (3, "the ledger has no end", replace(KEPT, ledger=[*KEPT.ledger[:3], *KEPT.ledger[4:]])),
    (3, "the ledger has exit code 3", doctored(FAILING, status="Done", minor_status="ApplicationComplete")),
    (
        3,
        "nobody killed it",
        replace(doctored(FAILING, status="Terminated", minor_status="KilledByBatch"), ledger=KEPT.ledger[:5]),
    ),
    (
        3,
        "did not find what its parent wrote",
        replace(KEPT, ledger=[*KEPT.ledger, a_run(CHILD, WRONG_INPUT, attempt=2)[1]]),
    ),
    (3, "the catalogue lacks /store/000001.dat", replace(KEPT, catalogue=frozenset())),
    (4, "is counted as", replace(KEPT, counted=COUNTED | {CHILD: {"Done": 2}})),
    (4, "1 were confirmed", replace(KEPT, instances=dict(list(KEPT.instances.items())[:2]), ledger=KEPT.ledger[:4])),
    (5, "before its parent was Done", replace(KEPT, ledger=[*a_run(CHILD), *a_run(PARENT), *KEPT.ledger[4:]])),
    (6, "is still Running", doctored(FAILING, status="Running", minor_status="ExecutingApplication")),
    (6, "says 'ExecutingApplication'", doctored(FAILING, status="Failed", minor_status="ExecutingApplication")),
    (7, "has 101 of status_history", doctored(CHILD, status_history=[{}] * 101)),
    (8, "has a stack trace", replace(KEPT, outputs={"agent.log": f"{TRACE}\n  File ...\nValueError: no"})),
    (8, "was refused, and is there", replace(KEPT, titles=KEPT.titles | {"nonsense"})),
]


@pytest.mark.parametrize(("promise", "text", "evidence"), BROKEN, ids=[text for _, text, _ in BROKEN])
def test_a_promise_that_is_broken(promise: int, text: str, evidence: Evidence) -> None:
    found = [violation.text for violation in check(evidence) if violation.promise == promise]
    assert len(found) == 1, check(evidence)
    assert text in found[0]


def test_what_we_killed_ourselves_may_end_in_silence() -> None:
    silent = doctored(FAILING, status="Terminated", minor_status="KilledByBatch")
    assert check(replace(silent, killed=frozenset({an_attempt(FAILING)}))) == []
