"""A campaign: work and faults side by side, then peace until everything is over, then the checker."""

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bson import ObjectId

from DmpWorkflow.core.database import counts
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Unavailable
from tests.faults import ledger
from tests.faults.checker import Evidence, Instance, Violation, check
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.people import People
from tests.faults.plan import plan
from tests.faults.work import WAVE_SECONDS, Kind

PEACE_SECONDS = 180.0  # without a payload that begins or ends
LOOK_SECONDS = 1.0
FIELDS = dict.fromkeys(("claim", "body"), 0)


@dataclass
class Result:
    """What a campaign came to."""

    seed: int
    faults: Counter[str]
    replies_lost: int
    statuses: Counter[str]
    instances: int
    attempts: int
    starts: int
    repeated: int  # calls of people that failed plainly and were made again
    seconds_to_peace: float
    violations: list[Violation] = field(default_factory=list)

    @property
    def doubled(self) -> int:
        return sum(violation.promise in (1, 2) for violation in self.violations)

    @property
    def lost(self) -> int:
        return sum(violation.promise in (3, 4, 6) for violation in self.violations)


def table(result: Result) -> list[str]:
    """Return the figures as lines for people."""
    figures = {
        "instances": result.instances,
        "attempts": result.attempts,
        "payloads started": result.starts,
        "calls of people that failed plainly and were repeated": result.repeated,
        "replies lost after the server had acted": result.replies_lost,
        "faults injected": sum(result.faults.values()),
        **{f"- {kind}": number for kind, number in sorted(result.faults.items())},
        "lost": result.lost,
        "doubled": result.doubled,
        "promises broken": len(result.violations),
    }
    lines = [f"{name:<55}{number:>6}" for name, number in figures.items()]
    ends = [f"  {number:>6} {status}" for status, number in sorted(result.statuses.items())]
    broken = [f"promise {violation.promise}: {violation.text}" for violation in result.violations]
    return [f"seed {result.seed}; peace came after {result.seconds_to_peace:.0f} s", *lines, "ends:", *ends, *broken]


def run(seed: int, seconds: float, folder: Path, say: Callable[[str], None] = print) -> Result:
    """Run the campaign of this seed with all files in ``folder``."""
    say(f"faults: seed {seed}, {seconds:.0f} s, files in {folder}")
    with Installation(folder) as installation:
        people = People(installation, waves=math.ceil(seconds / WAVE_SECONDS))
        injector = Injector(installation)
        people.start()
        try:
            injector.run(plan(seed, seconds))
        finally:
            people.stop()
        over = time.monotonic()
        problems = [] if people.wait(PEACE_SECONDS) else ["people still try to submit"]
        _wait_for_the_end(installation, people)
        evidence = gather(installation, people, injector)
        (folder / "outputs").write_text("".join(f"== {name}\n{text}\n" for name, text in evidence.outputs.items()))
        violations = check(evidence) + [Violation(8, problem) for problem in [*people.problems, *problems]]
        return _result(seed, injector, people, evidence, violations, installation, time.monotonic() - over)


def _wait_for_the_end(installation: Installation, people: People) -> None:
    """Wait until every instance is final, and give up when nothing moves any more.

    What a failed parent holds up is freed by starting that anew.
    """
    seen, deadline = -1, math.inf
    while time.monotonic() < deadline:
        if (lines := len(ledger.read(installation.ledger))) != seen:
            seen, deadline = lines, time.monotonic() + PEACE_SECONDS
        _start_parents_anew(installation, people)
        if _is_over(installation):
            return
        time.sleep(LOOK_SECONDS)


def _is_over(installation: Installation) -> bool:
    if installation.unfinished():
        return False
    return not any(agent.wrappers() or agent.kept() for agent in installation.agents)


def _start_parents_anew(installation: Installation, people: People) -> None:
    for job, known in people.confirmed.items():
        bad = {"job": ObjectId(job), "status": {"$in": [str(MajorStatus.FAILED), str(MajorStatus.TERMINATED)]}}
        if known.kind is not Kind.PARENT or not (
            found := installation.database.instances.distinct("instanceId", bad)
        ):
            continue
        with suppress(Unavailable):  # then the next look will do
            installation.people.roll_back(job, instances=found)


def gather(installation: Installation, people: People, injector: Injector) -> Evidence:
    """Return all that the checker compares."""
    database = installation.database
    instances = {_key(found): found for found in database.instances.find({}, FIELDS)}
    jobs = {job["_id"]: job["title"] for job in database.jobs.find({}, {"title": 1})}
    outputs = dict(said for agent in installation.agents for said in agent.said())
    outputs |= {str(server.log): server.log.read_text(errors="replace") for server in installation.servers}
    return Evidence(
        jobs=people.confirmed,
        ledger=ledger.read(installation.ledger),
        instances=instances,
        counted={str(job): _words(found) for job, found in counts.of_jobs(database, jobs).items()},
        fresh={str(job): _words(_afresh(database, job)) for job in jobs},
        catalogue=frozenset((file["site"], file["filename"]) for file in database.files.find({})),
        taken={agent.name: frozenset(agent.taken()) for agent in installation.agents},
        kept=[str(path) for agent in installation.agents for path in agent.kept()],
        outputs=outputs,
        refused=people.refused,
        titles=frozenset(jobs.values()),
        killed=frozenset(injector.killed),
        ordered=frozenset(injector.ordered),
        filled=frozenset(injector.filled),
    )


def _key(found: dict[str, Any]) -> Instance:
    return str(found["job"]), found["instanceId"]


def _afresh(database: Database, job: ObjectId) -> counts.Counts:
    return database.transaction(lambda session: counts.afresh(database, job, session))


def _words(found: counts.Counts) -> dict[str, int]:
    return {str(status): number for status, number in found.items()}


def _result(
    seed: int,
    injector: Injector,
    people: People,
    evidence: Evidence,
    violations: list[Violation],
    installation: Installation,
    seconds: float,
) -> Result:
    return Result(
        seed=seed,
        faults=Counter({str(kind): number for kind, number in injector.injected.items()}),
        replies_lost=installation.proxy.lost.total(),
        statuses=Counter(
            f"{found['status']} {found.get('minor_status', '')}" for found in evidence.instances.values()
        ),
        instances=len(evidence.instances),
        attempts=sum(found["attempt"] for found in evidence.instances.values()),
        starts=sum(entry.word == "start" for entry in evidence.ledger),
        repeated=people.repeated,
        seconds_to_peace=seconds,
        violations=violations,
    )
