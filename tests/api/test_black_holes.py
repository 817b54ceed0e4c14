"""Hosts that fail everything quickly are told of, and avoided where that is wanted."""

from datetime import timedelta

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import black_holes, clock, counts, site_health
from DmpWorkflow.core.database.black_holes import BlackHole, End
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.reporting import HostAvoided, Rules, apply_reports
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report
from DmpWorkflow.utils.errors import DmpWorkflowError
from tests.api.test_documents import plan
from tests.api.test_reporting import assert_counts_are_exact, claim_all, instance, make_job

AVOID = Rules(pause_after=0, avoid_black_holes=True)


def start(
    database: Database, job: ObjectId, number: int, host: str, attempt: int = 1, rules: Rules = AVOID
) -> object:
    report = Report(MajorStatus.RUNNING, attempt, 1, f"runner{number}-{attempt}")
    return apply_reports(database, [StatusReport(job, number, report, {"hostname": host})], rules=rules)[0]


def end(database: Database, job: ObjectId, number: int, minor_status: str = "NoSpaceLeft") -> None:
    status = MajorStatus.DONE if minor_status == "ApplicationComplete" else MajorStatus.FAILED
    report = Report(status, 1, 2, f"runner{number}-1")
    apply_reports(database, [StatusReport(job, number, report, {"minor_status": minor_status})], rules=AVOID)


def run(database: Database, job: ObjectId, numbers: range, host: str, minor_status: str) -> None:
    for number in numbers:
        assert start(database, job, number, host) is Outcome.APPLY
        end(database, job, number, minor_status)


def black_hole(database: Database) -> ObjectId:
    """Return a job of which "bad" failed ten, and "good" did one."""
    job = make_job(database, 40)
    claim_all(database)
    run(database, job, range(1, 11), "bad", "NoSpaceLeft")
    run(database, job, range(11, 12), "good", "ApplicationComplete")
    return job


def test_a_host_that_fails_everything_is_told_of_with_its_site(database: Database) -> None:
    black_hole(database)
    assert black_holes.of_sites(database, ["local", "CNAF"]) == [BlackHole("local", "bad", 10)]
    database.agents.insert_one({"site": "local", "agent": "a", "last_beat": clock.now()})
    database.activity.delete_many({"scope": "site:local"})  # else the site as a whole fails too much
    (health,) = site_health.of_sites(database, ["local"])
    assert (str(health.light), health.reason) == ("amber", "host bad fails everything: 10 in a row")


def test_a_job_that_fails_everywhere_makes_no_black_hole(database: Database) -> None:
    broken, sound = make_job(database, 40), make_job(database, 5, "sound")
    claim_all(database)
    for host, first in (("wn1", 1), ("wn2", 13)):
        run(database, broken, range(first, first + 12), host, "ApplicationExitCode1")
    run(database, sound, range(1, 2), "wn3", "ApplicationComplete")
    assert black_holes.of_sites(database, ["local"]) == []
    assert start(database, broken, 30, "wn1") is Outcome.APPLY


@pytest.mark.parametrize(
    ("minor_status", "wall"),
    [("ExceedingMemory", timedelta(0)), ("LostContact", timedelta(0)), ("NoSpaceLeft", timedelta(hours=5))],
)
def test_what_is_not_the_hosts_fault_or_took_its_time_does_not_count(
    database: Database, minor_status: str, wall: timedelta
) -> None:
    job = black_hole(database)
    database.streaks.delete_one({"hostname": "bad"})
    ends = [End(("local", "bad"), job, MajorStatus.FAILED, minor_status, wall)] * 20
    black_holes.note(database, ends)
    run(database, job, range(20, 21), "good", "ApplicationComplete")
    assert black_holes.of_sites(database, ["local"]) == []


def test_a_success_ends_the_row(database: Database) -> None:
    job = black_hole(database)
    bad, done = ("local", "bad"), MajorStatus.DONE
    black_holes.note(database, [End(bad, job, done, "ApplicationComplete", None)])
    assert black_holes.of_sites(database, ["local"]) == []


def test_what_wants_to_start_on_a_black_hole_is_free_again_and_no_retry_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = black_hole(database)
    refused = start(database, job, 20, "bad")
    assert isinstance(refused, HostAvoided) and "fails everything quickly" in str(refused)
    found = instance(database, job, 20)
    assert (found["status"], found["handed_out"], found.get("retried"), found["avoided"]) == ("New", False, None, 1)
    assert found["attempts"][0]["minor_status"] == "HostAvoided" and found["attempts"][0]["hostname"] == "bad"
    assert isinstance(start(database, job, 20, "bad"), DmpWorkflowError)
    assert start(database, job, 21, "good") is Outcome.APPLY
    assert start(database, job, 22, "bad", rules=Rules()) is Outcome.APPLY
    assert_counts_are_exact(database, job)
    later = clock.now() + timedelta(minutes=5)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert claim_all(database, "r2") == [(job, 20)]
    assert start(database, job, 20, "good", attempt=2) is Outcome.APPLY
    streak = database.streaks.find_one({"hostname": "bad"}) or {}
    assert streak["failed"] == 10


def test_nothing_is_kept_from_running_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job = black_hole(database)
    database.instances.update_one({"job": job, "instanceId": 20}, {"$set": {"avoided": 5}})
    assert start(database, job, 20, "bad") is Outcome.APPLY
    later = clock.now() + black_holes.AGAIN_AFTER
    monkeypatch.setattr(clock, "now", lambda: later)
    assert start(database, job, 21, "bad") is Outcome.APPLY
    assert counts.of_jobs(database, [job])[job][MajorStatus.RUNNING] == 2
    end(database, job, 21)
    assert isinstance(start(database, job, 22, "bad"), HostAvoided)


def test_suspects_are_found_by_an_index(database: Database) -> None:
    job = black_hole(database)
    for number in range(30):
        black_holes.note(
            database, [End(("local", f"wn{number}"), job, MajorStatus.DONE, "ApplicationComplete", None)]
        )
    query = {"site": {"$in": ["local"]}, "failed": {"$gte": black_holes.ENOUGH}}
    assert plan(database, database.streaks, query, sort=[("failed", -1)])[::2] == ("site_1_failed_-1", 1)
