from datetime import timedelta

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import claims, creation, data_catalogue, heartbeats, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.heartbeats import Answer, Held
from DmpWorkflow.core.database.reporting import StatusReport, apply_report
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound


def test_an_agent_is_told_what_to_do_with_each_that_it_holds(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 4)
    claims.claim(database, claims.ClaimRequest("local", "a", "r1", 3, timedelta(minutes=5)))
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.SUBMITTED, 1, 0)))
    apply_report(database, StatusReport(job, 2, Report(MajorStatus.DONE, 1, 1)))
    holds = [
        Held(job, 1, 1),
        Held(job, 1, 0),
        Held(job, 2, 1),
        Held(job, 3, 1),
        Held(job, 4, 1),
        Held(ObjectId(), 1, 1),
    ]
    beat = {"agent": "a", "hostname": "wn1", "version": "3"}
    assert heartbeats.agent_beat(database, beat, "local", holds) == [
        Answer.GO_ON, Answer.CANCEL, Answer.OVER, Answer.ADOPT, Answer.CANCEL, Answer.UNKNOWN,
    ]  # fmt: skip
    assert heartbeats.agent_beat(database, beat, "CNAF", holds[:1]) == [Answer.UNKNOWN]
    assert heartbeats.agent_beat(database, beat, "local", []) == []


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
