"""Promise 6: nobody is forgotten. Silence is noticed in two stages, and contact at any time counts."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import claims, heartbeats, reaper, reporting
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.heartbeats import Held
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reaper import Patience, Reaped, reap
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome
from tests.api.conftest import Pass
from tests.api.test_documents import plan
from tests.api.test_reporting import assert_counts_are_exact, claim_all, instance, make_job, report

HOUR = timedelta(hours=1)
BEAT = {"agent": "agent", "hostname": "wn1", "version": "3"}


def running(database: Database, number: int) -> ObjectId:
    job = make_job(database, number)
    claim_all(database)
    for instance_id in range(1, number + 1):
        apply_report(database, report(job, instance_id, MajorStatus.RUNNING, 1))
    return job


def test_silence_stalls_and_then_loses_an_instance_with_the_reason(database: Database, wait: Pass) -> None:
    job = running(database, 3)
    apply_report(database, report(job, 3, MajorStatus.DONE, 2))
    heartbeats.agent_beat(database, BEAT, "local", [])
    wait(0.9 * HOUR)
    assert reap(database, Patience()) == Reaped()
    begin = wait(0.2 * HOUR)
    assert reap(database, Patience(), dry_run=True) == Reaped(stalled=2)
    assert reap(database, Patience()) == Reaped(stalled=2)
    found = instance(database, job, 1)
    assert (found["status"], found["stalled_since"]) == ("Running", begin)
    assert [entry["minor_status"] for entry in found["status_history"]] == ["AwaitingBatchSubmission", "Stalled"]
    wait(22 * HOUR)
    assert reap(database, Patience()) == Reaped()
    wait(2 * HOUR)
    heartbeats.agent_beat(database, BEAT, "local", [])
    assert reap(database, Patience(), dry_run=True) == Reaped(lost=2)
    assert reap(database, Patience()) == Reaped(lost=2)
    found = instance(database, job, 2)
    assert (found["status"], found["minor_status"], found["lost"]) == ("Failed", "LostContact", True)
    assert found["status_history"][-1]["minor_status"] == "LostContact"
    assert "no sign of life since" in found["log"] and "its agent agent was last heard of at" in found["log"]
    assert instance(database, job, 3)["status"] == "Done"
    assert reap(database, Patience()) == Reaped()
    assert_counts_are_exact(database, job)


def test_what_a_silent_agent_held_is_lost_with_it(database: Database, wait: Pass) -> None:
    job = make_job(database, 1)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, 0))
    assert heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])]) == []
    wait(2 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=1)
    wait(24 * HOUR)
    assert reap(database, Patience()) == Reaped(lost=1)
    assert instance(database, job, 1)["minor_status"] == "AgentLost"


def by_report(database: Database, job: ObjectId) -> None:
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 2))


def by_agent(database: Database, job: ObjectId) -> None:
    heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])])


@pytest.mark.parametrize("contact", [by_report, by_agent])
def test_any_contact_ends_the_stall(
    database: Database, wait: Pass, contact: Callable[[Database, ObjectId], None]
) -> None:
    job = running(database, 1)
    wait(2 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=1)
    wait(22.9 * HOUR)
    contact(database, job)
    assert "stalled_since" not in instance(database, job, 1)
    wait(0.9 * HOUR)
    assert reap(database, Patience()) == Reaped()
    assert instance(database, job, 1)["status"] == "Running"


def test_contact_at_the_very_moment_of_the_verdict_wins(
    database: Database, wait: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = running(database, 1)
    wait(2 * HOUR)
    reap(database, Patience())
    wait(24 * HOUR)

    def contact_first(*arguments: Any, **options: Any) -> Any:
        by_agent(database, job)
        return reporting.apply_reports(*arguments, **options)

    monkeypatch.setattr(reaper, "apply_reports", contact_first)
    assert reap(database, Patience()) == Reaped()
    assert instance(database, job, 1)["status"] == "Running"


def test_after_an_outage_of_the_server_everybody_has_time_to_come_back(database: Database, wait: Pass) -> None:
    job = running(database, 1)
    wait(100 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=1)
    assert reap(database, Patience()) == Reaped()
    assert instance(database, job, 1)["status"] == "Running"


def test_one_that_was_lost_may_go_on_and_its_success_counts(database: Database, wait: Pass) -> None:
    job = running(database, 1)
    lose_all(database, wait)
    assert heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])]) == []
    assert apply_report(database, report(job, 1, MajorStatus.RUNNING, 2)) is Outcome.LATE
    assert apply_report(database, report(job, 1, MajorStatus.DONE, 3)) is Outcome.APPLY
    assert instance(database, job, 1)["status"] == "Done"
    assert_counts_are_exact(database, job)


def lose_all(database: Database, wait: Pass) -> None:
    wait(2 * HOUR)
    reap(database, Patience())
    wait(24 * HOUR)
    reap(database, Patience())


def test_an_order_to_end_is_what_the_end_of_a_lost_one_is_called(database: Database, wait: Pass) -> None:
    job = running(database, 1)
    kill(database, job, [1])
    lose_all(database, wait)
    found = instance(database, job, 1)
    assert (found["status"], found["minor_status"]) == ("Terminated", "KilledByUser")


def test_old_clients_are_given_more_time(database: Database, wait: Pass) -> None:
    job = make_job(database, 1)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, None, attempt=None, batchId="1"))
    wait(80 * HOUR)
    assert reap(database, Patience()) == Reaped()
    wait(10 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=1)
    wait(80 * HOUR)
    assert reap(database, Patience()) == Reaped()
    wait(10 * HOUR)
    assert reap(database, Patience()) == Reaped(lost=1)
    late = report(job, 1, MajorStatus.DONE, None, attempt=None, batchId="1")
    assert apply_report(database, late) is Outcome.APPLY


def test_a_job_may_bear_more_or_less_silence(database: Database, wait: Pass) -> None:
    job = running(database, 1)
    database.jobs.update_one({"_id": job}, {"$set": {"lost_after": 1200}})
    wait(HOUR / 5)
    assert reap(database, Patience()) == Reaped(stalled=1)
    wait(HOUR / 5)
    assert reap(database, Patience()) == Reaped(lost=1)
    other = make_job(database, 1, "patient")
    database.jobs.update_one({"_id": other}, {"$set": {"lost_after": 100 * 3600}})
    claim_all(database, "r2")
    apply_report(database, report(other, 1, MajorStatus.RUNNING, 1))
    lose_all(database, wait)
    assert instance(database, other, 1)["status"] == "Running"


def test_many_are_reaped_in_parts_and_once_also_by_two_reapers(
    database: Database, wait: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "PART", 7)
    job = running(database, 40)
    wait(2 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=40)
    wait(24 * HOUR)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: reap(database, Patience()), range(2)))
    assert sum(one.lost for one in done) <= 40
    reap(database, Patience())
    assert {found["status"] for found in database.instances.find({"job": job})} == {"Failed"}
    assert all(len(found["status_history"]) == 3 for found in database.instances.find({"job": job}))
    assert_counts_are_exact(database, job)


def test_data_without_a_last_contact_is_not_forgotten(database: Database, wait: Pass) -> None:
    running(database, 1)
    database.instances.update_many({}, {"$unset": {"last_contact": ""}})
    wait(2 * HOUR)
    assert reap(database, Patience()) == Reaped(stalled=1)


def test_a_lease_that_ran_out_is_returned_also_where_nobody_claims(database: Database, wait: Pass) -> None:
    job = make_job(database, 1)
    claim_all(database)
    wait(HOUR)
    reap(database, Patience())
    assert instance(database, job, 1)["claimable"]


def test_of_many_processes_one_has_the_turn(database: Database, wait: Pass) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: reaper.is_turn(database), range(16))) == 1
    wait(reaper.INTERVAL)
    assert reaper.is_turn(database)
    assert not reaper.is_turn(database)


def test_the_reaper_looks_at_the_silent_only(database: Database, wait: Pass) -> None:
    job = running(database, 30)
    wait(2 * HOUR)
    for number in range(1, 21):
        apply_report(database, report(job, number, MajorStatus.RUNNING, 2))
    assert_looks_at(database, "newly", 10)
    reap(database, Patience())
    assert_looks_at(database, "newly", 0)
    wait(24 * HOUR)
    assert_looks_at(database, "for_good", 10)
    assert plan(database, database.instances, claims._over()) == ("waits", 0, 0)
    assert claims.end_waits(database) == 0


def assert_looks_at(database: Database, which: str, number: int) -> None:
    (silent, _) = reaper._silent(database, Patience())
    index, keys, documents = plan(database, database.instances, getattr(silent, which), limit=reaper.PART)
    assert (index, documents) == ("under_way", number)
    assert keys <= number + 2  # where ranges begin and end
