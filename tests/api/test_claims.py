from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import claims, clock, creation, jobs, reporting
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report
from DmpWorkflow.utils.errors import Conflict


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {"title": "sim", "type": "User", "site": "local", "body": "<Jobs/>"} | fields


def job_with(database: Database, number: int, **fields: Any) -> ObjectId:
    job: ObjectId = jobs.submit(database, jobs.NewJob(**_filled(fields)))["_id"]
    creation.create_instances(database, job, number)
    return job


def request(request_id: str, limit: int, agent: str = "agent", site: str = "local") -> claims.ClaimRequest:
    return claims.ClaimRequest(site, agent, request_id, limit, timedelta(minutes=10))


def numbers(claimed: list[dict[str, object]]) -> list[object]:
    return [instance["instanceId"] for instance in claimed]


def test_an_instance_is_claimed_by_one_however_many_ask(database: Database) -> None:
    job_with(database, 100)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: claims.claim(database, request(f"r{n}", 10, agent=f"a{n}")), range(16)))
    taken = [instance["instanceId"] for claimed in got for instance in claimed]
    assert len(taken) == len(set(taken)) == 100
    assert database.instances.count_documents({"attempt": 1, "handed_out": True}) == 100


def test_repeating_a_request_returns_the_same_set(database: Database) -> None:
    job_with(database, 10)
    first = claims.claim(database, request("r1", 4))
    assert numbers(first) == [1, 2, 3, 4]
    assert claims.claim(database, request("r1", 4)) == first
    assert numbers(claims.claim(database, request("r2", 4))) == [5, 6, 7, 8]


def test_a_repeated_request_gets_no_more_than_the_first_time(database: Database) -> None:
    job = job_with(database, 2)
    assert len(claims.claim(database, request("r1", 4))) == 2
    creation.create_instances(database, job, 2)
    assert len(claims.claim(database, request("r1", 4))) == 2


def test_a_request_that_crashed_before_it_took_any_takes_them_when_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_with(database, 3)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(claims, "_take", lambda *_: (_ for _ in ()).throw(RuntimeError("crash")))
        claims.claim(database, request("r1", 2))
    assert numbers(claims.claim(database, request("r1", 2))) == [1, 2]


def test_a_request_id_belongs_to_its_agent(database: Database) -> None:
    job_with(database, 3)
    claims.claim(database, request("r1", 1))
    with pytest.raises(Conflict, match="another agent"):
        claims.claim(database, request("r1", 1, agent="thief"))


def test_a_lease_that_ran_out_returns_the_instance(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job_with(database, 1)
    assert numbers(claims.claim(database, request("r1", 1))) == [1]
    assert claims.claim(database, request("r2", 1)) == []
    later = clock.now() + timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: later)
    again = claims.claim(database, request("r3", 1))
    assert [(instance["instanceId"], instance["attempt"]) for instance in again] == [(1, 2)]
    assert claims.claim(database, request("r1", 1)) == []


def test_a_site_gets_its_own_work_only_most_urgent_first(database: Database) -> None:
    job_with(database, 2, title="slow", priority=0)
    job_with(database, 2, title="urgent", priority=5)
    job_with(database, 2, title="elsewhere", site="CNAF")
    got = claims.claim(database, request("r1", 10))
    assert [jobs.by_id(database, instance["job"])["title"] for instance in got] == ["urgent"] * 2 + ["slow"] * 2


def test_a_repeated_request_does_not_take_what_was_rolled_back(database: Database) -> None:
    job = job_with(database, 2)
    assert numbers(claims.claim(database, request("r1", 2))) == [1, 2]
    roll_back(database, job, [2])
    assert numbers(claims.claim(database, request("r1", 2))) == [1]


def test_what_is_lost_between_two_rounds_of_a_claim_is_not_handed_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with(database, 8)
    take, rounds = claims._take, iter(range(10))

    def take_beside_others(*arguments: Any) -> None:
        number = next(rounds)
        if number == 0:  # another agent is faster with one, so that there is a second round
            database.instances.update_one({"job": job, "instanceId": 2}, {"$set": {"claimable": False}})
        elif number == 1:
            roll_back(database, job, [1])
        take(*arguments)

    monkeypatch.setattr(claims, "_take", take_beside_others)
    got = claims.claim(database, request("r1", 2))
    handed_out = [(found["instanceId"], found["attempt"]) for found in got]
    assert len(handed_out) == len({number for number, _ in handed_out}) == 2
    again = claims.claim(database, request("r1", 2))
    assert [(found["instanceId"], found["attempt"]) for found in again] == handed_out


def test_a_late_submitted_wins_over_a_claim_that_is_under_way(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with(database, 1)
    claims.claim(database, request("r1", 1))
    later = clock.now() + timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: later)
    record = claims._record

    def submitted_meanwhile(*arguments: Any) -> Any:
        report = StatusReport(job, 1, Report(MajorStatus.SUBMITTED, 1, 0))
        assert reporting.apply_report(database, report) is Outcome.APPLY
        return record(*arguments)

    monkeypatch.setattr(claims, "_record", submitted_meanwhile)
    assert claims.claim(database, request("r2", 1)) == []
