"""Status reports: many at a time, each one guarded update, exact counts and children in the same transaction."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession

from DmpWorkflow.core.batch_id import same_batch_job
from DmpWorkflow.core.database import (
    activity,
    alike,
    black_holes,
    children,
    clock,
    counts,
    distributions,
    pausing,
    retrying,
)
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.killing import KILLED_BY_USER
from DmpWorkflow.core.database.status_report import STATE_FIELDS, Key, StatusReport, guard_of, state_of, update_of
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.core.reports import Outcome, StaleAttempt, decide
from DmpWorkflow.utils.errors import AccessDenied, DmpWorkflowError, NotFound, Unavailable
from DmpWorkflow.utils.patience import growing_pauses

TRIES = 10  # a report loses to another one of the same instance only if both come at once
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds before another try; they grow


@dataclass(frozen=True)
class Rules:
    """What the server does by itself.

    It pauses a job after so many failures of its payload in a row (0: never), and may keep payloads from starting on
    black holes.
    """

    pause_after: int = 20
    avoid_black_holes: bool = False


USUAL = Rules()
Decision = tuple[StatusReport, Document | None, Outcome | DmpWorkflowError]  # with the state it is based on


def apply_report(database: Database, report: StatusReport) -> Outcome:
    """Apply one report; raises NotFound, StaleAttempt or IllegalTransition."""
    result = apply_reports(database, [report])[0]
    if isinstance(result, DmpWorkflowError):
        raise result
    return result


def apply_reports(
    database: Database, reports: Sequence[StatusReport], site: str | None = None, rules: Rules = USUAL
) -> list[Outcome | DmpWorkflowError]:
    """Apply reports in their order and return a result for each; a bad one never blocks the others.

    ``site``, if given, is the only one whose instances the sender may report. What fails starts again in the same
    transaction, where its job wants that.
    """
    results: list[Outcome | DmpWorkflowError] = [Unavailable("this report was not applied: send it again")] * len(
        reports
    )
    for positions in _rounds(reports):
        _apply_round(database, reports, positions, results, site, rules)
    return results


def _rounds(reports: Sequence[StatusReport]) -> list[list[int]]:
    """Split into rounds in which no instance occurs twice, so that each round is one bulk write."""
    seen: Counter[Key] = Counter()
    rounds: defaultdict[int, list[int]] = defaultdict(list)
    for position, report in enumerate(reports):
        rounds[seen[report.key]].append(position)
        seen[report.key] += 1
    return [rounds[number] for number in sorted(rounds)]


def _apply_round(
    database: Database,
    reports: Sequence[StatusReport],
    positions: Sequence[int],
    results: list[Outcome | DmpWorkflowError],
    site: str | None,
    rules: Rules,
) -> None:
    pauses = growing_pauses(FIRST_PAUSE, LONGEST_PAUSE)
    for number in range(TRIES):
        if number:  # what another one has just written may take a moment to be seen by a majority
            time.sleep(next(pauses))
        accepted: list[tuple[StatusReport, Document]] = []
        chosen: list[int] = []
        for position, (report, state, result) in _decided(database, reports, positions, site).items():
            results[position] = result
            if state is not None and result is Outcome.APPLY:
                accepted.append((report, state))
                chosen.append(position)
        accepted = _less_unfit_hosts(database, accepted, chosen, results, rules)
        if _write(database, accepted):
            _tell(database, accepted, rules)
            return
    for position in positions:
        if results[position] is Outcome.APPLY or isinstance(results[position], HostAvoided):
            results[position] = Unavailable("other reports of this instance came at once: send it again")


def _less_unfit_hosts(
    database: Database,
    accepted: list[tuple[StatusReport, Document]],
    positions: Sequence[int],
    results: list[Outcome | DmpWorkflowError],
    rules: Rules,
) -> list[tuple[StatusReport, Document]]:
    """Let attempts that begin on a host to avoid end there and then; their runners are told to stop."""
    beginning = {
        number: (state["site"], report.values["hostname"])
        for number, (report, state) in enumerate(accepted)
        if _begins(report, state)
    }
    avoided = black_holes.to_avoid(database, beginning.values()) if rules.avoid_black_holes else set()
    changed = list(accepted)
    for number, host in beginning.items():
        report, state = accepted[number]
        if host in avoided or _failed_here(database, state, host):
            values = {**report.values, "minor_status": retrying.HOST_AVOIDED}
            ended = replace(report.report, status=MajorStatus.FAILED)
            changed[number] = (replace(report, report=ended, values=values), state)
            results[positions[number]] = HostAvoided()
    return changed


def _failed_here(database: Database, state: Document, host: black_holes.Host) -> bool:
    """Say whether an automatic retry would begin where an attempt failed already: other hosts first, if there are."""
    if not state.get("retried") or (state.get("avoided") or 0) >= retrying.OTHERS_FIRST:
        return False
    tried = {attempt.get("hostname") for attempt in state.get("attempts", ())}
    return host[1] in tried and black_holes.has_other(database, host)


def _begins(report: StatusReport, state: Document) -> bool:
    """Say whether a runner wants to begin here, which was not refused to this instance too often already."""
    is_first = report.report.status is MajorStatus.RUNNING and report.report.runner and not state.get("runner")
    return bool(is_first and report.values.get("hostname")) and (state.get("avoided") or 0) < retrying.MOST_AVOIDED


def _decided(
    database: Database, reports: Sequence[StatusReport], positions: Sequence[int], site: str | None
) -> dict[int, Decision]:
    """Return by position what is to become of reports; what is refused, which ends a payload, is confirmed."""

    def decide_on(chosen: Sequence[int], session: ClientSession | None = None) -> dict[int, Decision]:
        states = _states(database, [reports[position] for position in chosen], session)
        decisions = {}
        for position in chosen:
            state = states.get(reports[position].key)
            report = _as_ordered(reports[position], state)
            decisions[position] = report, state, _decide(state, report, site)
        return decisions

    decisions = decide_on(positions)
    refused = [position for position, (*_, result) in decisions.items() if isinstance(result, DmpWorkflowError)]
    return decisions | (database.confirmed(lambda session: decide_on(refused, session)) if refused else {})


def _states(
    database: Database, reports: Sequence[StatusReport], session: ClientSession | None
) -> dict[Key, Document]:
    numbers: defaultdict[ObjectId, list[int]] = defaultdict(list)
    for report in reports:
        numbers[report.job].append(report.instance)
    query = {"$or": [{"job": job, "instanceId": {"$in": ids}} for job, ids in numbers.items()]}
    found = database.instances.find(query, STATE_FIELDS, batch_size=len(reports), session=session) if numbers else ()
    return {(state["job"], state["instanceId"]): state for state in found}


def _as_ordered(report: StatusReport, state: Document | None) -> StatusReport:
    """Return the report; where a person ordered the end, every end but success is that order's."""
    if not (state and state.get("kill")) or report.report.status not in FINAL - {MajorStatus.DONE}:
        return report
    values = {**report.values, "minor_status": KILLED_BY_USER}
    return replace(report, report=replace(report.report, status=MajorStatus.TERMINATED), values=values)


def _decide(state: Document | None, report: StatusReport, site: str | None) -> Outcome | DmpWorkflowError:
    if state is None:
        return NotFound(f"there is no instance {report.instance} of job {report.job}")
    if site is not None and state["site"] != site:
        return AccessDenied(f"this token is for site {site}, not for {state['site']}")
    if report.report.attempt is None and not same_batch_job(report.values.get("batchId"), state.get("batchId")):
        return StaleAttempt(f"batch job {report.values['batchId']} is of an old attempt: stop")
    if report.stalled_since is not None and report.stalled_since != state.get("stalled_since"):
        return Outcome.LATE
    try:
        return decide(state_of(state), report.report)
    except DmpWorkflowError as refused:
        return refused


def _write(database: Database, accepted: Sequence[tuple[StatusReport, Document]]) -> bool:
    """Write all accepted reports or none; False if an instance changed since it was read."""
    if not accepted:
        return True
    now = clock.now()
    updates = [(guard_of(state), update_of(database, report, state, now)) for report, state in accepted]
    moved = [(report, state) for report, state in accepted if report.report.status != state["status"]]
    if not moved:  # one by one, which the driver repeats if the connection breaks; a transaction repeats all
        single = [UpdateOne(*one) for one in updates]
        return database.instances.bulk_write(single, ordered=False).matched_count == len(updates)
    writes = alike.statements(updates, own="batchId")
    try:
        database.transaction(lambda session: _write_all(database, writes, len(updates), moved, session))
    except _ChangedMeanwhileError:
        return False
    return True


def _tell(database: Database, accepted: Sequence[tuple[StatusReport, Document]], rules: Rules) -> None:
    """Count what happened: for charts, and for what looks at many ends."""
    moved = [
        (report, state)
        for report, state in accepted
        if report.report.status != state["status"] and report.values.get("minor_status") != retrying.HOST_AVOIDED
    ]
    changes = [_change(report, state) for report, state in moved]
    activity.note(database, changes)
    pausing.note(database, changes, rules.pause_after)
    ended = [(report, state) for report, state in moved if report.report.status in FINAL]
    distributions.note(database, [_used(report, state) for report, state in ended])
    black_holes.note(database, [_end(report, state) for report, state in ended])


def _end(report: StatusReport, state: Document) -> black_holes.End:
    change = _change(report, state)
    wall = clock.now() - state["started_at"] if state.get("started_at") else None
    return black_holes.End((change.site, change.hostname), change.job, change.status, change.minor_status, wall)


def _change(report: StatusReport, state: Document) -> activity.Change:
    minor = report.values.get("minor_status") or state["minor_status"] or ""
    host = report.values.get("hostname") or state.get("hostname") or ""
    return activity.Change(report.job, state["site"], report.report.status, minor, host)


def _used(report: StatusReport, state: Document) -> distributions.Used:
    def most(name: str, peak: str) -> float | None:
        known = [value for value in (report.values.get(name), state.get(peak)) if value is not None]
        return max(map(float, known), default=None)

    began = state.get("started_at")
    wall = (clock.now() - began).total_seconds() if began else None
    limits = {name: report.values.get(name) or state.get(name) for name in ("cpu_max", "mem_max")}
    events = int(report.values.get("Nevents") or state.get("Nevents") or 0)
    return distributions.Used(
        report.job,
        most("cpu", "cpu_peak"),
        most("memory", "memory_peak"),
        wall,
        **limits,
        events=events if report.report.status is MajorStatus.DONE else 0,
    )


class HostAvoided(StaleAttempt):
    """This host fails everything quickly, or has failed this instance, and is avoided: stop."""


class _ChangedMeanwhileError(Exception):
    """An instance is no longer in the state that was decided on."""


def _write_all(
    database: Database,
    writes: Sequence[UpdateOne | UpdateMany],
    expected: int,
    moved: Sequence[tuple[StatusReport, Document]],
    session: ClientSession,
) -> None:
    if database.instances.bulk_write(writes, ordered=False, session=session).matched_count != expected:
        raise _ChangedMeanwhileError
    deltas: defaultdict[ObjectId, Counter[MajorStatus]] = defaultdict(Counter)
    done: defaultdict[ObjectId, list[int]] = defaultdict(list)
    for report, state in moved:
        deltas[report.job][MajorStatus(state["status"])] -= 1
        deltas[report.job][report.report.status] += 1
        if report.report.status is MajorStatus.DONE:
            done[report.job].append(report.instance)
    failed = [_ended_badly(report, state) for report, state in moved if report.report.status in retrying.BAD]
    for again in retrying.start_again(database, failed, session):
        deltas[again.job][again.status] -= 1
        deltas[again.job][MajorStatus.NEW] += 1
    for job in sorted(done):
        children.release(database, job, done[job], session)
    for job in sorted(deltas):  # last and in order: shortest time to conflict, no deadlock
        counts.change(database, job, deltas[job], session)


def _ended_badly(report: StatusReport, state: Document) -> retrying.Ended:
    change = _change(report, state)
    return retrying.Ended(
        state["_id"],
        report.job,
        change.status,
        change.minor_status,
        report.lost,
        state.get("retried") or 0,
        state.get("avoided") or 0,
    )
