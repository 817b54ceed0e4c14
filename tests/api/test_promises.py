"""Promises 1 to 5 under random claims, reports, repeats, delays, roll-backs and crashes, checked against a model."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from DmpWorkflow.core.database import children, claims, clock, counts, creation, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.reporting import apply_reports
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report

LEASE = timedelta(minutes=10)
FINAL = ("Done", "Failed", "Terminated")
# How far a life has come; a report never takes it back. Written down here again, apart from the code under test.
RANK = {"New": 0, "Submitted": 1, "Running": 2, "Done": 3, "Failed": 3, "Terminated": 3}
names = itertools.count()


@dataclass
class Model:
    """What one instance should be."""

    status: str = "New"
    attempt: int = 0
    handed_out: bool = False
    sequence: int = -1
    leased_until: Any = None
    runner: str | None = None


@dataclass
class Holder:
    """An agent or payload that was handed an attempt, and perhaps does not know that it is over."""

    job: str
    number: int
    attempt: int
    sent: list[StatusReport] = field(default_factory=list)


class Promises(RuleBasedStateMachine):
    database: Database

    @initialize()
    def two_jobs(self) -> None:
        self.time = clock.now()
        self.clock = patch.object(clock, "now", lambda: self.time)
        self.clock.start()
        for collection in (self.database.jobs, self.database.instances, self.database.counts, self.database.claims):
            collection.delete_many({})
        parent = jobs.submit(self.database, jobs.NewJob("parent", "User", "local", "<Jobs/>"))["_id"]
        child = jobs.submit(self.database, jobs.NewJob("child", "User", "local", "<Jobs/>", dependencies=(parent,)))[
            "_id"
        ]
        self.jobs = {"parent": parent, "child": child}
        self.titles = {parent: "parent", child: "child"}
        self.model: dict[tuple[str, int], Model] = {}
        self.holders: list[Holder] = []
        self.handed: set[tuple[str, int, int]] = set()
        self.requests: dict[str, set[tuple[str, int, int]]] = {}
        for title in self.jobs:
            self.create(title, 1)

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()

    def claimable(self) -> set[tuple[str, int]]:
        return {
            key
            for key, model in self.model.items()
            if model.status == "New"
            and not (model.leased_until and model.leased_until > self.time)
            and (key[0] == "parent" or self.parent_is_done(key[1]))
        }

    def parent_is_done(self, number: int) -> bool:
        parent = self.model.get(("parent", number))
        return parent is not None and parent.status == "Done"

    @precondition(lambda self: len(self.model) < 6)
    @rule(job=st.sampled_from(["parent", "child"]), number=st.integers(1, 2))
    def create_more(self, job: str, number: int) -> None:
        self.create(job, number)

    def create(self, job: str, number: int) -> None:
        for made in creation.create_instances(self.database, self.jobs[job], number):
            assert (job, made) not in self.model
            self.model[job, made] = Model()

    @rule(limit=st.integers(1, 5))
    def claim(self, limit: int) -> None:
        request = f"request{len(self.requests)}"
        expected = self.claimable()
        got = self.ask(request, limit)
        taken = {(job, number) for job, number, _ in got}
        assert len(got) == min(limit, len(expected)) and taken <= expected
        assert not got & self.handed, "an attempt was handed out twice"
        self.handed |= got
        self.requests[request] = got
        for job, number, attempt in got:
            model = self.model[job, number]
            assert attempt == model.attempt + 1
            self.model[job, number] = Model(attempt=attempt, handed_out=True, leased_until=self.time + LEASE)
            self.holders.append(Holder(job, number, attempt))

    def ask(self, request: str, limit: int) -> set[tuple[str, int, int]]:
        asked = claims.ClaimRequest("local", "agent", request, limit, LEASE)
        return {
            (self.titles[found["job"]], found["instanceId"], found["attempt"])
            for found in claims.claim(self.database, asked)
        }

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def repeat_a_claim(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.requests)))
        assert self.ask(request, 5) <= self.requests[request]

    @rule(minutes=st.sampled_from([1, 11]))
    def time_passes(self, minutes: int) -> None:
        self.time += timedelta(minutes=minutes)

    @precondition(lambda self: self.holders)
    @rule(
        data=st.data(),
        status=st.sampled_from(["Submitted", "Running", "Done", "Failed"]),
        together=st.integers(1, 3),
        crash=st.booleans(),
    )
    def report(self, data: st.DataObject, status: str, together: int, crash: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.holders))), min_size=1, max_size=together))
        reports = [self.next_report(self.holders[index], status) for index in chosen]
        self.send(reports, crash)

    @precondition(lambda self: any(holder.sent for holder in self.holders))
    @rule(data=st.data())
    def repeat_a_report(self, data: st.DataObject) -> None:
        sent = [report for holder in self.holders for report in holder.sent]
        self.send([data.draw(st.sampled_from(sent))], crash=False)

    def next_report(self, holder: Holder, status: str) -> StatusReport:
        sequence = 0 if status == "Submitted" else len(holder.sent) + 1
        runner = None if status == "Submitted" else f"runner{holder.attempt}"
        made = StatusReport(
            self.jobs[holder.job], holder.number, Report(MajorStatus(status), holder.attempt, sequence, runner)
        )
        holder.sent.append(made)
        return made

    def send(self, reports: list[StatusReport], crash: bool) -> None:
        if crash:
            before = list(self.database.instances.find())
            with (
                patch.object(counts, "change", side_effect=RuntimeError("crash")),
                patch.object(children, "release", side_effect=RuntimeError("crash")),
            ):
                try:
                    apply_reports(self.database, reports)
                except RuntimeError:
                    after = list(self.database.instances.find())
                    assert [found["status"] for found in after] == [found["status"] for found in before]
        for report, result in zip(reports, apply_reports(self.database, reports), strict=True):
            expected = self.expect(self.model[self.titles[report.job], report.instance], report.report)
            if not crash:  # a crash may come after some that change no status
                assert (result is Outcome.APPLY) == (expected == "apply"), (expected, result)
                assert isinstance(result, Outcome) == (expected != "refuse"), (expected, result)

    @staticmethod
    def expect(model: Model, report: Report) -> str:
        """Say what should become of the report, and do it to the model."""
        assert report.sequence is not None
        if not model.handed_out or report.attempt != model.attempt:
            return "refuse"
        if report.sequence <= model.sequence:
            return "ignore"
        if report.status == "Submitted" and model.status == "Running":
            return "ignore"
        if model.status in FINAL:
            return "ignore" if report.status == model.status else "refuse"
        if RANK[report.status] < RANK[model.status]:
            return "refuse"
        model.status, model.sequence, model.leased_until = str(report.status), report.sequence, None
        return "apply"

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        job, number = data.draw(st.sampled_from(sorted(self.model)))
        assert roll_back(self.database, self.jobs[job], [number]) == 1
        self.model[job, number] = Model(attempt=self.model[job, number].attempt)

    @invariant()
    def the_database_is_as_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        stored = {
            (self.titles[found["job"]], found["instanceId"]): (found["status"], found["attempt"], found["handed_out"])
            for found in self.database.instances.find()
        }
        expected = {key: (model.status, model.attempt, model.handed_out) for key, model in self.model.items()}
        assert stored == expected

    @invariant()
    def the_counts_are_exact(self) -> None:
        if not hasattr(self, "model"):
            return
        shown = counts.of_jobs(self.database, self.jobs.values())
        for title, job in self.jobs.items():
            fresh = Counter(model.status for (name, _), model in self.model.items() if name == title)
            assert {status: count for status, count in shown[job].items() if count} == fresh


@pytest.mark.parametrize("steps", [30])
def test_promises_1_to_5(database: Database, steps: int) -> None:
    Promises.database = database
    run_state_machine_as_test(
        Promises,
        settings=settings(
            max_examples=80,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes with a database
        ),
    )
