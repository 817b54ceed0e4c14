from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from DmpWorkflow.core.database import claims, clock, counts, creation, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reporting import apply_report, apply_reports
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import HISTORY_LIMIT, LOG_LIMIT, StatusReport
from DmpWorkflow.core.lifecycle import IllegalTransition, MajorStatus
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from DmpWorkflow.core.samples import LIMIT
from DmpWorkflow.utils.errors import AccessDenied, NotFound


def make_job(database: Database, number: int, title: str = "sim", parents: tuple[ObjectId, ...] = ()) -> ObjectId:
    new = jobs.NewJob(title=title, type="User", site="local", body="<Jobs/>", dependencies=parents)
    job: ObjectId = jobs.submit(database, new)["_id"]
    creation.create_instances(database, job, number)
    return job


def claim_all(database: Database, request_id: str = "r1") -> list[tuple[ObjectId, int]]:
    got = claims.claim(database, claims.ClaimRequest("local", "agent", request_id, 1000, timedelta(minutes=10)))
    return [(instance["job"], instance["instanceId"]) for instance in got]


def report(
    job: ObjectId, number: int, status: MajorStatus, sequence: int | None, attempt: int | None = 1, **values: Any
) -> StatusReport:
    return StatusReport(job, number, Report(status, attempt, sequence), values)


def instance(database: Database, job: ObjectId, number: int) -> dict[str, Any]:
    found = database.instances.find_one({"job": job, "instanceId": number})
    assert found is not None
    return found


def assert_counts_are_exact(database: Database, job: ObjectId) -> None:
    fresh = dict.fromkeys(MajorStatus, 0)
    for found in database.instances.find({"job": job}):
        fresh[MajorStatus(found["status"])] += 1
    assert counts.of_jobs(database, [job])[job] == fresh


def test_a_whole_life(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, 0, batchId="17"))
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1, hostname="wn1", minor_status="PreparingJob"))
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 2, cpu=1.5, memory=20))
    apply_report(database, report(job, 1, MajorStatus.DONE, 3, minor_status="ApplicationComplete", log="bye"))
    found = instance(database, job, 1)
    assert (found["status"], found["minor_status"], found["batchId"], found["hostname"], found["log"]) == (
        "Done", "ApplicationComplete", "17", "wn1", "bye",
    )  # fmt: skip
    assert [entry["status"] for entry in found["status_history"]] == ["Submitted", "Running", "Done"]
    assert (found["cpu"][0]["value"], found["memory_peak"]) == (1.5, 20.0)
    assert_counts_are_exact(database, job)


def test_in_bulk_each_item_has_its_own_result(database: Database) -> None:
    job = make_job(database, 3)
    claim_all(database)
    results = apply_reports(
        database,
        [
            report(job, 1, MajorStatus.SUBMITTED, 0),
            report(job, 99, MajorStatus.SUBMITTED, 0),
            report(job, 2, MajorStatus.SUBMITTED, 0, attempt=7),
            report(job, 3, MajorStatus.RUNNING, 1),
            report(job, 1, MajorStatus.RUNNING, 1),
            report(job, 1, MajorStatus.RUNNING, 1),
        ],
    )
    kinds = [result if isinstance(result, Outcome) else type(result) for result in results]
    assert kinds == [Outcome.APPLY, NotFound, StaleAttempt, Outcome.APPLY, Outcome.APPLY, Outcome.REPEATED]
    assert instance(database, job, 1)["status"] == "Running"
    assert_counts_are_exact(database, job)


def test_counts_stay_exact_when_a_report_crashes_in_the_middle(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(database, 2)
    claim_all(database)
    with monkeypatch.context() as patched, pytest.raises(PyMongoError, match="crash"):
        patched.setattr(counts, "change", lambda *_: (_ for _ in ()).throw(PyMongoError("crash")))
        apply_report(database, report(job, 1, MajorStatus.SUBMITTED, 0))
    assert instance(database, job, 1)["status"] == "New"
    assert_counts_are_exact(database, job)


def test_the_same_report_many_times_at_once_counts_once(database: Database) -> None:
    job = make_job(database, 4)
    claim_all(database)
    reports = [report(job, number, MajorStatus.SUBMITTED, 0) for number in (1, 2, 3, 4)] * 4
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda item: apply_report(database, item), reports))
    assert results.count(Outcome.APPLY) == 4
    assert all(len(instance(database, job, number)["status_history"]) == 1 for number in (1, 2, 3, 4))
    assert_counts_are_exact(database, job)


def test_a_second_runner_of_the_attempt_may_not_start(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    first = StatusReport(job, 1, Report(MajorStatus.RUNNING, 1, 1, "runner1"))
    assert apply_report(database, first) is Outcome.APPLY
    assert apply_report(database, first) is Outcome.REPEATED
    with pytest.raises(StaleAttempt):
        apply_report(database, StatusReport(job, 1, Report(MajorStatus.RUNNING, 1, 1, "runner2")))


class Updates(CommandListener):
    """The updates that are sent to the database."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "update":
            self.sent.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


def test_every_write_of_a_report_is_repeated_by_the_driver_if_the_connection_breaks(
    database: Database, mongod: EmbeddedMongod
) -> None:
    job = make_job(database, 3)
    claim_all(database)
    updates = Updates()
    client: MongoClient[dict[str, Any]] = MongoClient(mongod.uri, tz_aware=True, event_listeners=[updates])
    watched = Database(mongod.uri, database.name, client)
    for minor in ("Starting", "Working"):  # the second time no status changes, so that there is no transaction
        reports = [report(job, number, MajorStatus.RUNNING, None, minor_status=minor) for number in (1, 2, 3)]
        assert apply_reports(watched, reports) == [Outcome.APPLY] * 3
    watched.close()
    written = [command for command in updates.sent if command["update"] == "job_instance"]
    assert len(written) == 2 and all("txnNumber" in command for command in written)


def test_a_late_submitted_is_good_until_the_next_claim(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(database, 2)
    claim_all(database)
    later = clock.now() + timedelta(hours=1)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert claims.end_waits(database) == 2
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, 0))
    assert claim_all(database, "r2") == [(job, 2)]
    with pytest.raises(StaleAttempt):
        apply_report(database, report(job, 2, MajorStatus.SUBMITTED, 0, attempt=1))


def test_a_roll_back_fences_the_attempt_and_keeps_its_history(database: Database) -> None:
    job = make_job(database, 2)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1, hostname="wn1", log="Grüße " * 2000))
    assert roll_back(database, job, [1, 2, 99], body='{"MetaData": []}') == 2
    found = instance(database, job, 1)
    assert (found["status"], found["body"], found["claimable"]) == ("New", '{"MetaData": []}', True)
    assert [(kept["attempt"], kept["status"], kept["hostname"]) for kept in found["attempts"]] == [
        (1, "Running", "wn1")
    ]
    assert "hostname" not in found and "log" not in found
    with pytest.raises(StaleAttempt, match="current: none"):
        apply_report(database, report(job, 1, MajorStatus.DONE, 2))
    assert_counts_are_exact(database, job)
    assert len(claim_all(database, "r2")) == 2
    assert instance(database, job, 1)["attempt"] == 2


def test_instance_n_waits_for_instance_n_of_every_parent(database: Database) -> None:
    one, two = make_job(database, 2, "one"), make_job(database, 2, "two")
    claim_all(database)
    apply_report(database, report(one, 1, MajorStatus.DONE, 1))
    child = make_job(database, 2, "child", (one, two))
    assert claim_all(database, "r2") == []
    apply_report(database, report(two, 1, MajorStatus.DONE, 1))
    assert claim_all(database, "r3") == [(child, 1)]
    apply_reports(database, [report(parent, 2, MajorStatus.DONE, 1) for parent in (one, two)])
    assert claim_all(database, "r4") == [(child, 2)]


def test_a_child_waits_again_when_its_parent_is_rolled_back(database: Database) -> None:
    parent = make_job(database, 1, "parent")
    child = make_job(database, 1, "child", (parent,))
    claim_all(database)
    apply_report(database, report(parent, 1, MajorStatus.DONE, 1))
    roll_back(database, parent, [1])
    assert claim_all(database, "r2") == [(parent, 1)]
    apply_report(database, report(parent, 1, MajorStatus.DONE, 1, attempt=2))
    assert claim_all(database, "r3") == [(child, 1)]


def test_no_child_is_forgotten_when_parents_end_while_children_are_made(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "CHUNK", 5)
    parent = make_job(database, 60, "parent")
    child = make_job(database, 0, "child", (parent,))
    claim_all(database)
    with ThreadPoolExecutor(8) as pool:
        making = pool.submit(creation.create_instances, database, child, 60)
        done = pool.map(lambda n: apply_report(database, report(parent, n, MajorStatus.DONE, 1)), range(1, 61))
        assert set(done) == {Outcome.APPLY}
        making.result()
    assert sorted(claim_all(database, "r2")) == [(child, number) for number in range(1, 61)]


def test_samples_history_and_log_stay_bounded(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    for sequence in range(1, LIMIT + 60):
        minor = f"step{sequence}"
        values: dict[str, Any] = {"cpu": sequence, "memory": 500 if sequence == 50 else 1, "minor_status": minor}
        apply_report(database, report(job, 1, MajorStatus.RUNNING, sequence, **values, log="x" * 100_000))
    found = instance(database, job, 1)
    assert len(found["cpu"]) <= LIMIT and len(found["memory"]) <= LIMIT
    assert found["cpu"][0]["value"] == 1 and found["cpu"][-1]["value"] == LIMIT + 59
    assert found["memory_peak"] == 500
    assert len(found["status_history"]) == HISTORY_LIMIT
    assert len(found["log"]) == LOG_LIMIT


def test_a_final_status_stays(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.DONE, 1))
    with pytest.raises(IllegalTransition, match="Done cannot become Running"):
        apply_report(database, report(job, 1, MajorStatus.RUNNING, 2))
    assert_counts_are_exact(database, job)


def test_a_success_comes_late_after_the_instance_was_thought_lost(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.FAILED, 1), {"minor_status": "Lost"}, lost=True))
    assert apply_report(database, report(job, 1, MajorStatus.DONE, 5)) is Outcome.APPLY
    assert instance(database, job, 1)["status"] == "Done"
    assert_counts_are_exact(database, job)


def test_an_old_client_may_report_a_submission_without_a_claim(database: Database) -> None:
    job = make_job(database, 1)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, None, attempt=None, batchId="1"))
    found = instance(database, job, 1)
    assert (found["status"], found["attempt"], found["handed_out"], found["claimable"]) == (
        "Submitted",
        1,
        True,
        False,
    )


def test_an_old_clients_payload_of_an_earlier_attempt_is_refused_by_its_batch_job(database: Database) -> None:
    job = make_job(database, 1)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, None, attempt=None, batchId="1"))
    roll_back(database, job, [1])
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, None, attempt=None, batchId="2"))
    with pytest.raises(StaleAttempt, match="batch job 1 is of an old attempt"):
        apply_report(database, report(job, 1, MajorStatus.RUNNING, None, attempt=None, batchId="1"))
    apply_report(database, report(job, 1, MajorStatus.RUNNING, None, attempt=None, batchId="2"))


def test_a_site_reports_its_own_instances_only(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    submitted = report(job, 1, MajorStatus.SUBMITTED, 0)
    assert isinstance(apply_reports(database, [submitted], site="CNAF")[0], AccessDenied)
    assert apply_reports(database, [submitted], site="local") == [Outcome.APPLY]
