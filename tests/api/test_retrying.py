"""Automatic retries and pauses of jobs: in the transaction of the failure, with exact counts."""

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure, PyMongoError

from DmpWorkflow.core.database import claims, counts, creation, job_changes, jobs, pausing
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.job_changes import JobChanges
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reporting import HostAvoided, Rules, apply_report, apply_reports
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.database.submission import Submission, Words, submit_xml
from DmpWorkflow.core.lifecycle import IllegalTransition, MajorStatus
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput
from tests.api.conftest import Pass
from tests.api.test_reporting import assert_counts_are_exact, claim_all, instance, make_job, report

HOUR = timedelta(hours=1)
PAYLOAD = "ApplicationExitCode1"


def retrying(database: Database, number: int, retries: int = 2, on: tuple[str, ...] = ()) -> ObjectId:
    job = make_job(database, number)
    job_changes.change(database, jobs.by_id(database, job), JobChanges(retries=retries, retry_on=on))
    claim_all(database)
    return job


def fail(job: ObjectId, number: int, minor_status: str, attempt: int = 1, **values: Any) -> StatusReport:
    return report(job, number, MajorStatus.FAILED, 9, attempt, minor_status=minor_status, **values)


def test_a_failure_starts_again_after_a_pause_until_its_retries_are_used(database: Database, wait: Pass) -> None:
    job = retrying(database, 1)
    kept: list[str] = []
    for attempt, request in ((1, "r2"), (2, "r3")):
        apply_report(database, report(job, 1, MajorStatus.RUNNING, 1, attempt, hostname=f"wn{attempt}"))
        assert apply_report(database, fail(job, 1, "NoSpaceLeft", attempt, log="bad")) is Outcome.APPLY
        found = instance(database, job, 1)
        assert (found["status"], found["claimable"], found["retried"]) == ("New", False, attempt)
        kept.append(f"wn{attempt}")
        told = [(one["hostname"], one["minor_status"], one["log"]) for one in found["attempts"]]
        assert told == [(host, "NoSpaceLeft", "bad") for host in kept]
        assert_counts_are_exact(database, job)
        assert claim_all(database, f"{request}-early") == []
        with pytest.raises(StaleAttempt):
            apply_report(database, report(job, 1, MajorStatus.DONE, 10, attempt))
        wait(HOUR / 10)
        assert claim_all(database, request) == [(job, 1)]
    apply_report(database, fail(job, 1, "NoSpaceLeft", 3))
    assert instance(database, job, 1)["status"] == "Failed"
    roll_back(database, job, [1])
    assert instance(database, job, 1)["retried"] == 0
    assert_counts_are_exact(database, job)


def test_other_hosts_are_tried_first(database: Database, wait: Pass) -> None:
    job = retrying(database, 2)

    def begin(host: str, attempt: int) -> Outcome | DmpWorkflowError:
        wait(HOUR / 10)
        claim_all(database, f"r{attempt}")
        started = Report(MajorStatus.RUNNING, attempt, 1, f"runner{attempt}")
        return apply_reports(database, [StatusReport(job, 1, started, {"hostname": host})])[0]

    assert begin("bad", 1) is Outcome.APPLY
    apply_report(database, fail(job, 1, "NoSpaceLeft"))
    assert begin("bad", 2) is Outcome.APPLY, "there is no other"
    apply_report(database, fail(job, 1, "NoSpaceLeft", 2))
    second = instance(database, job, 2)["attempt"]
    apply_report(database, report(job, 2, MajorStatus.RUNNING, 1, second, hostname="good"))
    apply_report(database, report(job, 2, MajorStatus.DONE, 9, second))
    for attempt in (3, 4):
        assert isinstance(begin("bad", attempt), HostAvoided)
        assert (instance(database, job, 1)["status"], instance(database, job, 1)["retried"]) == ("New", 2)
        assert_counts_are_exact(database, job)
    assert begin("bad", 5) is Outcome.APPLY, "better there than nowhere"


def test_only_what_the_policy_names_starts_again(database: Database) -> None:
    job = retrying(database, 4, on=("payload", "ExceedingMemory"))
    results = apply_reports(
        database,
        [
            fail(job, 1, PAYLOAD),
            fail(job, 2, "NoSpaceLeft"),
            report(job, 3, MajorStatus.TERMINATED, 9, minor_status="ExceedingMemory"),
            report(job, 4, MajorStatus.DONE, 9),
        ],
    )
    assert results == [Outcome.APPLY] * 4
    statuses = [instance(database, job, number)["status"] for number in (1, 2, 3, 4)]
    assert statuses == ["New", "Failed", "New", "Done"]
    assert_counts_are_exact(database, job)


def test_an_order_to_end_is_not_retried(database: Database) -> None:
    job = retrying(database, 2)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    kill(database, job, [1])
    apply_report(database, fail(job, 1, "KilledByBatch"))
    assert instance(database, job, 1)["status"] == "Terminated"
    apply_report(database, fail(job, 2, "KilledByBatch"))
    assert kill(database, job, [2]) == (1, 0)
    assert instance(database, job, 2)["status"] == "Terminated"
    assert claims.end_waits(database) == 0
    assert_counts_are_exact(database, job)


def test_failure_and_retry_are_one_transaction(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job = retrying(database, 1)
    with monkeypatch.context() as patched, pytest.raises(PyMongoError, match="crash"):
        patched.setattr(counts, "change", lambda *_: (_ for _ in ()).throw(PyMongoError("crash")))
        apply_report(database, fail(job, 1, "NoSpaceLeft"))
    found = instance(database, job, 1)
    assert (found["status"], found["attempt"], found.get("attempts"), found["handed_out"]) == ("New", 1, None, True)
    apply_report(database, fail(job, 1, "NoSpaceLeft"))
    assert len(instance(database, job, 1)["attempts"]) == 1
    assert_counts_are_exact(database, job)


def lose(database: Database, job: ObjectId) -> None:
    values = {"minor_status": "BatchJobVanished"}
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.FAILED, 1), values, lost=True))


@pytest.mark.parametrize("status", [MajorStatus.RUNNING, MajorStatus.DONE])
def test_one_that_was_only_silent_comes_back_until_its_next_attempt_is_handed_out(
    database: Database, wait: Pass, status: MajorStatus
) -> None:
    job = retrying(database, 1)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    lose(database, job)
    assert instance(database, job, 1)["status"] == "New"
    assert apply_report(database, report(job, 1, MajorStatus.RUNNING, 1)) is Outcome.REPEATED
    assert apply_report(database, report(job, 1, status, 2)) is Outcome.APPLY
    assert instance(database, job, 1)["status"] == status
    wait(HOUR)
    assert claim_all(database, "r2") == []
    assert_counts_are_exact(database, job)


def test_a_lost_attempt_is_refused_once_the_next_one_is_handed_out(database: Database, wait: Pass) -> None:
    job = retrying(database, 1)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    lose(database, job)
    wait(HOUR)
    assert claim_all(database, "r2") == [(job, 1)]
    with pytest.raises(StaleAttempt):
        apply_report(database, report(job, 1, MajorStatus.DONE, 2))
    assert instance(database, job, 1)["attempt"] == 2


def test_what_was_lost_and_then_killed_stays_so(database: Database) -> None:
    job = retrying(database, 1)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    lose(database, job)
    assert kill(database, job, [1]) == (1, 0)
    with pytest.raises(IllegalTransition):
        apply_report(database, report(job, 1, MajorStatus.RUNNING, 2))
    assert instance(database, job, 1)["minor_status"] == "KilledByUser"


XML = b"""<Jobs><Job name="again" type="User" site="local" retries="3" retry-on="%b" lost-after="02:00">
<JobWrapper executable="bash">x</JobWrapper></Job></Jobs>"""
WORDS = Words(types=("User",), sites=("local",))


def test_the_xml_says_what_is_retried(database: Database) -> None:
    (row,), _ = submit_xml(database, Submission(XML % b"site, ApplicationExitCode3", instances=1), WORDS)
    stored = jobs.by_slug(database, row["slug"])
    assert (stored["retries"], stored["retry_on"], stored["lost_after"]) == (
        3,
        ["site", "ApplicationExitCode3"],
        7200,
    )
    assert b'retry-on="site,ApplicationExitCode3"' in stored["body"].encode()
    with pytest.raises(InvalidInput, match="line 1: element 'Job': retry-on: 'sites'"):
        submit_xml(database, Submission(XML % b"sites"), WORDS)
    with pytest.raises(InvalidInput, match="lost-after"):
        submit_xml(database, Submission((XML % b"site").replace(b"02:00", b"2 h")), WORDS)


def test_many_failures_of_the_payload_in_a_row_pause_the_job(database: Database) -> None:
    job = make_job(database, 30)
    got = claims.claim(database, claims.ClaimRequest("local", "agent", "r1", 10, HOUR))
    rules = Rules(pause_after=5)
    numbers = [one["instanceId"] for one in got]
    apply_reports(database, [fail(job, number, PAYLOAD) for number in numbers[:4]], rules=rules)
    apply_report_of = [report(job, numbers[4], MajorStatus.DONE, 9)]
    apply_reports(database, apply_report_of, rules=rules)
    apply_reports(database, [fail(job, number, "NoSpaceLeft") for number in numbers[5:7]], rules=rules)
    assert jobs.by_id(database, job).get("paused") is None
    assert claim_all(database, "r2")
    more = [one["instanceId"] for one in database.instances.find({"job": job, "status": "New"}, limit=5)]
    apply_reports(database, [fail(job, number, PAYLOAD) for number in more], rules=rules)
    told = jobs.by_id(database, job)["paused"]
    assert told == f"5 attempts failed in a row, the last one with {PAYLOAD}"


def test_a_paused_job_hands_out_nothing_until_it_is_resumed(
    database: Database, wait: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "PART", 3)
    parent = make_job(database, 2, "parent")
    job = retrying(database, 8)  # claims those of the parent as well
    late = make_job(database, 2, "late", (parent,))
    for paused in (job, late):
        pausing.pause(database, paused, "by anna")
        pausing.pause(database, paused, "by bert")
        assert jobs.by_id(database, paused)["paused"] == "by anna"
    creation.create_instances(database, job, 2)
    apply_report(database, fail(job, 1, "NoSpaceLeft"))
    apply_report(database, report(job, 2, MajorStatus.DONE, 9))
    roll_back(database, job, [2])
    for number in (1, 2):
        apply_report(database, report(parent, number, MajorStatus.DONE, 9))
    wait(HOUR)  # leases run out, pauses end
    assert claim_all(database, "r2") == []
    for paused in (job, late):
        pausing.resume(database, paused)
    assert len(claim_all(database, "r3")) == 12
    assert "paused" not in jobs.by_id(database, job)


def test_what_becomes_new_while_a_job_is_being_paused_is_paused_as_well(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(database, 5)
    claim_all(database)
    lock, conflicts = counts.lock, []

    def change_meanwhile(*arguments: Any) -> None:
        """What makes instances New at this moment has to begin again, and then sees the pause."""
        lock(*arguments)
        with (
            pytest.raises(OperationFailure, match="WriteConflict") as found,
            database.client.start_session() as other,
            other.start_transaction(),
        ):
            counts.change(database, job, {MajorStatus.NEW: 1}, other)
        conflicts.append(found)

    with monkeypatch.context() as patched:
        patched.setattr(counts, "lock", change_meanwhile)
        patched.setattr(pausing, "_mark", lambda *_: None)  # of which it would be too late to be found
        pausing.pause(database, job, "by anna")
    assert len(conflicts) == 1
    roll_back(database, job, [1, 2, 3, 4, 5])
    assert claim_all(database, "r2") == []
