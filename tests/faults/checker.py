"""Compares ledger, database and catalogue, promise by promise. Pure: it is given what it compares."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from DmpWorkflow.core.database.creation import AWAITING
from DmpWorkflow.core.database.rollback import ATTEMPTS_KEPT
from DmpWorkflow.core.database.status_report import HISTORY_LIMIT, LOG_LIMIT
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.core.samples import LIMIT
from tests.faults.ledger import Attempt, Entry
from tests.faults.work import WRONG_INPUT, Kind

Instance = tuple[str, int]
NO_REASONS = frozenset(
    {"", AWAITING, "WaitingForExecution", "PreparingJob", "ExecutingApplication", "ApplicationComplete"}
)
SILENT = frozenset(
    {"PayloadGaveNoReport", "BatchJobVanished", "KilledByBatch"}
)  # the payload's own word is not among them
DISK_FULL = frozenset({"NoSpaceLeftOnDevice"})
TRACE = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Acknowledged:
    """A job with instances 1 to ``number``, as the server has confirmed it."""

    title: str
    kind: Kind
    site: str
    number: int
    parent: str = ""  # its id
    files: tuple[str, ...] = ()  # of its instances, in their order


@dataclass
class Evidence:
    """What there is when everything is over; jobs by their id, counters by status."""

    jobs: Mapping[str, Acknowledged] = field(default_factory=dict)
    ledger: Sequence[Entry] = ()
    instances: Mapping[Instance, Mapping[str, Any]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fresh: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    catalogue: frozenset[tuple[str, str]] = frozenset()  # site and name
    taken: Mapping[str, frozenset[Attempt]] = field(default_factory=dict)  # by agent
    kept: Sequence[str] = ()  # reports left in outboxes
    outputs: Mapping[str, str] = field(default_factory=dict)
    refused: Sequence[str] = ()  # titles of what was refused
    titles: frozenset[str] = frozenset()  # of all jobs
    killed: frozenset[Attempt] = frozenset()  # whose wrapper we killed
    ordered: frozenset[Instance] = frozenset()  # that people killed or rolled back
    filled: frozenset[str] = frozenset()  # sites whose disk was full


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept, and how."""

    promise: int
    text: str


def check(evidence: Evidence) -> list[Violation]:
    """Return what does not hold, promise by promise."""
    return [Violation(promise, text) for promise, find in enumerate(PROMISES, start=1) for text in find(evidence)]


def one_hand(evidence: Evidence) -> Iterator[str]:
    """Each attempt was handed to one agent."""
    hands: defaultdict[Attempt, set[str]] = defaultdict(set)
    for agent, attempts in evidence.taken.items():
        for attempt in attempts:
            hands[attempt].add(agent)
    for entry in evidence.ledger:
        hands[entry.attempt].add(entry.place)
    for attempt, agents in hands.items():
        if len(agents) > 1:
            yield f"{_named(evidence, attempt)} came to {' and '.join(sorted(agents))}"


def one_run(evidence: Evidence) -> Iterator[str]:
    """Each attempt's payload started at most once, and only after the server had taken its first report."""
    starts = Counter(entry.attempt for entry in evidence.ledger if entry.word == "start")
    for attempt, number in starts.items():
        if number > 1:
            yield f"{_named(evidence, attempt)} started {number} times"
        instance = evidence.instances.get(attempt[:2])
        if instance is None or attempt[2] > instance["attempt"]:
            yield f"{_named(evidence, attempt)} started, and was never handed out"
        elif attempt[2] not in _begun(instance):
            yield f"{_named(evidence, attempt)} started, and the server does not know of it"


def _begun(instance: Mapping[str, Any]) -> set[int]:
    """Return the attempts that the server knows to have begun."""
    lives = [*instance.get("attempts", ()), instance]
    return {life["attempt"] for life in lives if life.get("started_at")}


def no_report_lost(evidence: Evidence) -> Iterator[str]:
    """What payloads told is in the database, their files are in the catalogue, and nothing waits in an outbox."""
    yield from (f"{path} was not delivered" for path in evidence.kept)
    ends = {entry.attempt: entry.code for entry in evidence.ledger if entry.word == "end"}
    for attempt, code in ends.items():
        if code == WRONG_INPUT:
            yield f"{_named(evidence, attempt)} did not find what its parent wrote"
    for (job, number), instance in evidence.instances.items():
        attempt = (job, number, instance["attempt"])
        if instance["handed_out"] and (text := _disagreement(evidence, attempt, ends.get(attempt), instance)):
            yield f"{_named(evidence, attempt)} {text}"
    for job, known in evidence.jobs.items():
        for number, file in enumerate(known.files, start=1):
            done = evidence.instances.get((job, number), {}).get("status") == MajorStatus.DONE
            if done and (known.site, file) not in evidence.catalogue:
                yield f"{known.title}/{number} is Done, and the catalogue lacks {file}"


def _disagreement(evidence: Evidence, attempt: Attempt, code: int | None, instance: Mapping[str, Any]) -> str:
    status, minor = instance["status"], instance.get("minor_status") or ""
    stands = f"is {status} ({minor}: {_last_words(instance)})"
    if status == MajorStatus.DONE:
        return (
            "" if code == 0 else f"{stands}, and the ledger has {'no end' if code is None else f'exit code {code}'}"
        )
    excused = attempt in evidence.killed or attempt[:2] in evidence.ordered
    site = evidence.jobs[attempt[0]].site if attempt[0] in evidence.jobs else ""
    if code is None:
        return f"{stands}, and nobody killed it" if minor in SILENT and not excused else ""
    if excused or (site in evidence.filled and minor in DISK_FULL):
        return ""
    told = (MajorStatus.FAILED, f"ApplicationExitCode{code}")
    return "" if code and (status, minor) == told else f"ended with exit code {code}, and {stands}"


def _last_words(instance: Mapping[str, Any]) -> str:
    return " / ".join((instance.get("log") or "").splitlines()[-4:])


def exact_numbers(evidence: Evidence) -> Iterator[str]:
    """The counters equal a fresh count, and all that was confirmed is there."""
    for job, fresh in evidence.fresh.items():
        if evidence.counted.get(job) != fresh:
            yield f"{job} is counted as {evidence.counted.get(job)}, and has {fresh}"
    for job, known in evidence.jobs.items():
        numbers = sorted(number for (its_job, number) in evidence.instances if its_job == job)
        if numbers != list(range(1, known.number + 1)):
            yield f"{known.title} has the instances {numbers}, and {known.number} were confirmed"


def parents_first(evidence: Evidence) -> Iterator[str]:
    """No child's payload started before the one of its parent had ended with success."""
    done: set[Instance] = set()
    for entry in evidence.ledger:
        job, number, _ = entry.attempt
        parent = evidence.jobs[job].parent if job in evidence.jobs else ""
        if entry.word == "start" and parent and (parent, number) not in done:
            yield f"{_named(evidence, entry.attempt)} started before its parent was Done"
        if entry.word == "end" and entry.code == 0:
            done.add((job, number))


def nobody_forgotten(evidence: Evidence) -> Iterator[str]:
    """Every instance is final, and says why if it is not Done."""
    for (job, number), instance in evidence.instances.items():
        status, minor = instance["status"], instance.get("minor_status") or ""
        if status not in FINAL:
            yield f"{_named(evidence, (job, number, instance['attempt']))} is still {status} ({minor})"
        elif status != MajorStatus.DONE and minor in NO_REASONS:
            yield f"{_named(evidence, (job, number, instance['attempt']))} is {status} and says {minor!r}"


def bounded_growth(evidence: Evidence) -> Iterator[str]:
    """Histories, samples and logs keep within their limits."""
    limits = {
        "status_history": HISTORY_LIMIT,
        "attempts": ATTEMPTS_KEPT,
        "cpu": LIMIT,
        "memory": LIMIT,
        "log": LOG_LIMIT,
    }
    for (job, number), instance in evidence.instances.items():
        for name, limit in limits.items():
            if len(instance.get(name) or ()) > limit:
                named = _named(evidence, (job, number, instance["attempt"]))
                yield f"{named} has {len(instance[name])} of {name}"


def plain_errors(evidence: Evidence) -> Iterator[str]:
    """Nobody printed a stack trace, and what was refused left nothing."""
    for name, text in evidence.outputs.items():
        if TRACE in text:
            yield f"{name} has a stack trace: {text[text.index(TRACE) :].splitlines()[1:][-1]}"
    yield from (f"job {title} was refused, and is there" for title in evidence.refused if title in evidence.titles)


def _named(evidence: Evidence, attempt: Attempt) -> str:
    job, number, count = attempt
    title = evidence.jobs[job].title if job in evidence.jobs else job
    return f"{title}/{number}, attempt {count},"


PROMISES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    one_hand, one_run, no_report_lost, exact_numbers, parents_first, nobody_forgotten, bounded_growth, plain_errors,
)  # fmt: skip
