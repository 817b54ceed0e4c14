"""Orders to end instances."""

from datetime import timedelta

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import clock, heartbeats
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.heartbeats import Answer
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.lifecycle import IllegalTransition, MajorStatus
from tests.api.test_reporting import assert_counts_are_exact, claim_all, instance, make_job, report

BEAT = {"agent": "a", "hostname": "wn1", "version": "3"}


def outcome(database: Database, job: ObjectId, number: int) -> tuple[str, str]:
    found = instance(database, job, number)
    return found["status"], found["minor_status"]


def answers(database: Database, job: ObjectId, *numbers: int) -> list[Answer]:
    told = heartbeats.agent_beat(database, BEAT, "local", [heartbeats.Held(job, 1, numbers)])
    answered = {number: answer for answer, held in told for number in held.instances}
    return [answered.get(number, Answer.GO_ON) for number in numbers]


def test_what_waits_ends_at_once_and_what_runs_when_its_end_is_reported(database: Database) -> None:
    job = make_job(database, 4)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.SUBMITTED, 0))
    apply_report(database, report(job, 2, MajorStatus.RUNNING, 1))
    apply_report(database, report(job, 3, MajorStatus.DONE, 1))
    assert kill(database, job, [1, 2, 3, 4]) == (1, 2)
    assert outcome(database, job, 3)[0] == "Done"
    assert outcome(database, job, 4) == ("Terminated", "KilledByUser")
    assert answers(database, job, 1, 2, 3, 4) == [Answer.KILL, Answer.KILL, Answer.OVER, Answer.OVER]
    apply_report(database, report(job, 1, MajorStatus.TERMINATED, None, minor_status="KilledByUser"))
    apply_report(database, report(job, 2, MajorStatus.TERMINATED, 2, minor_status="KilledByBatch"))
    assert outcome(database, job, 1) == outcome(database, job, 2) == ("Terminated", "KilledByUser")
    assert_counts_are_exact(database, job)


def test_what_was_claimed_and_then_killed_cannot_start(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    assert kill(database, job, [1]) == (1, 0)
    for status in (MajorStatus.SUBMITTED, MajorStatus.RUNNING):
        with pytest.raises(IllegalTransition):
            apply_report(database, report(job, 1, status, 1))
    database.instances.update_many({}, {"$set": {"last_update": clock.now() - timedelta(days=1)}})
    assert claim_all(database, "r2") == []


def test_a_success_is_not_taken_away_and_a_roll_back_ends_the_order(database: Database) -> None:
    job = make_job(database, 2)
    claim_all(database)
    for number in (1, 2):
        apply_report(database, report(job, number, MajorStatus.RUNNING, 1))
    kill(database, job, [1, 2])
    apply_report(database, report(job, 1, MajorStatus.DONE, 2, minor_status="ApplicationComplete"))
    assert outcome(database, job, 1) == ("Done", "ApplicationComplete")
    roll_back(database, job, [2])
    claim_all(database, "r2")
    apply_report(database, report(job, 2, MajorStatus.RUNNING, 1, attempt=2))
    assert heartbeats.agent_beat(database, BEAT, "local", [heartbeats.Held(job, 2, [2])]) == []
