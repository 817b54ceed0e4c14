from datetime import timedelta

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import claims, creation, data_catalogue, heartbeats, jobs, reaper
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.heartbeats import Answer, Held
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound
from tests.api.conftest import Pass

BEAT = {"agent": "a", "hostname": "wn1", "version": "3"}


def test_an_agent_is_told_what_to_do_with_each_that_it_holds(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 4)
    claims.claim(database, claims.ClaimRequest("local", "a", "r1", 3, timedelta(minutes=5)))
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.SUBMITTED, 1, 0)))
    apply_report(database, StatusReport(job, 2, Report(MajorStatus.DONE, 1, 1)))
    nowhere = ObjectId()
    holds = [Held(job, 1, [1, 2, 3, 4, 77]), Held(job, 0, [1]), Held(nowhere, 1, [1])]
    assert set(_told(database, "local", holds)) == {
        (Answer.CANCEL, job, 0, 1),
        (Answer.OVER, job, 1, 2),
        (Answer.ADOPT, job, 1, 3),
        (Answer.CANCEL, job, 1, 4),
        (Answer.UNKNOWN, job, 1, 77),
        (Answer.UNKNOWN, nowhere, 1, 1),
    }
    assert database.agents.distinct("holds") == [7]
    assert _told(database, "CNAF", [Held(job, 1, [1])]) == [(Answer.UNKNOWN, job, 1, 1)]
    assert _told(database, "local", []) == _told(database, "local", [Held(job, 1, [])]) == []


def _told(database: Database, site: str, holds: list[Held]) -> list[tuple[Answer, ObjectId, int, int]]:
    answers = heartbeats.agent_beat(database, BEAT, site, holds)
    return [(answer, held.job, held.attempt, number) for answer, held in answers for number in held.instances]


def test_numbers_far_apart_are_answered_as_those_in_a_row(database: Database) -> None:
    """They are asked for by spans, if those are few."""
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 1000)
    claims.claim(database, claims.ClaimRequest("local", "a", "r1", 1000, timedelta(minutes=5)))
    for step in (1, 2, 3, 100):
        numbers = list(range(1, 1002, step))
        told = _told(database, "local", [Held(job, 1, numbers)])
        unknown = [(Answer.UNKNOWN, job, 1, 1001)] if 1001 in numbers else []
        assert told == [(Answer.ADOPT, job, 1, number) for number in numbers if number <= 1000] + unknown


def test_a_contact_is_noted_some_times_before_silence_counts(database: Database, wait: Pass) -> None:
    """Each is a write for each instance that is held, and agents beat often."""
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 1)
    claims.claim(database, claims.ClaimRequest("local", "a", "r1", 1, timedelta(minutes=5)))
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.SUBMITTED, 1, 0)))
    noted = []
    for _ in range(60):
        wait(timedelta(minutes=1))
        heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])], reaper.Patience())
        noted.append((database.instances.find_one({"job": job}) or {})["last_contact"])
    assert len(set(noted)) == 11  # of the report, and of ten beats


def test_what_a_removal_that_died_took_away_is_unknown(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 4)
    database.jobs.update_one({"_id": job}, {"$set": {"removing": True}})
    database.instances.delete_many({"job": job, "instanceId": {"$lte": 2}})
    assert _told(database, "local", [Held(job, 1, [1, 2, 3, 4])]) == [
        (Answer.CANCEL, job, 1, 3),
        (Answer.CANCEL, job, 1, 4),
        (Answer.UNKNOWN, job, 1, 1),
        (Answer.UNKNOWN, job, 1, 2),
    ]


def test_what_an_agent_holds_is_not_lost_however_little_silence_its_job_bears(database: Database, wait: Pass) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>", lost_after=300))["_id"]
    creation.create_instances(database, job, 1)
    claims.claim(database, claims.ClaimRequest("local", "a", "r1", 1, timedelta(minutes=5)))
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.SUBMITTED, 1, 0)))
    for _ in range(15):
        wait(timedelta(minutes=1))
        heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])], reaper.Patience())
        assert reaper.reap(database, reaper.Patience()) == reaper.Reaped(0, 0)
    wait(timedelta(minutes=4))
    assert reaper.reap(database, reaper.Patience()) == reaper.Reaped(1, 0)
    heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1])], reaper.Patience())
    assert "stalled_since" not in (database.instances.find_one({"job": job}) or {})


def test_an_agent_that_cannot_ask_its_batch_system_still_holds_what_it_held(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    heartbeats.agent_beat(database, BEAT, "local", [Held(job, 1, [1, 2, 3])])
    assert heartbeats.agent_beat(database, BEAT | {"problem": "squeue does not answer"}, "local", None) == []
    for collection in (database.agents, database.beats):
        assert [(found["holds"], found["problem"]) for found in collection.find()] == [(3, "squeue does not answer")]


def test_the_latest_host_comes_first(database: Database) -> None:
    for host in ("wn1", "wn2", "wn1"):
        heartbeats.beat(database, host, "JobFetcher", "2.1.8")
    assert heartbeats.recent(database, 5) == ["wn1", "wn2"]
    assert heartbeats.recent(database, 1) == ["wn1"]
    assert heartbeats.recent(database, 0) == []


def test_files_are_registered_found_changed_and_deleted(database: Database) -> None:
    assert data_catalogue.register(database, "TEST", ["/a/1.root", "/a/2.root"], "root") == []
    assert len(data_catalogue.register(database, "TEST", ["/a/1.root"], "root")) == 1
    assert data_catalogue.find(database, "TEST", "New", "root", 5) == ["/a/2.root", "/a/1.root"]
    data_catalogue.set_status(database, "TEST", ["/a/1.root"], "Copied")
    data_catalogue.register(database, "TEST", ["/a/1.root"], "root")
    assert data_catalogue.find(database, "TEST", "Copied", "", 5) == ["/a/1.root"]
    with pytest.raises(Conflict, match="another type"):
        data_catalogue.register(database, "TEST", ["/a/1.root"], "text")
    with pytest.raises(NotFound, match="cannot find file in DB"):
        data_catalogue.delete(database, "TEST", ["/a/1.root", "/a/none.root"])
    assert data_catalogue.delete(database, "TEST", ["/a/1.root"]) == ["/a/1.root"]
    with pytest.raises(InvalidInput, match="status 'Eaten'"):
        data_catalogue.set_status(database, "TEST", ["/a/2.root"], "Eaten")
