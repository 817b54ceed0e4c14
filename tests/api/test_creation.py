from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest
from bson import ObjectId
from pymongo.errors import PyMongoError

from DmpWorkflow.core.database import clock, counts, creation, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.creation_requests import CreationRequest
from DmpWorkflow.core.database.reaper import Patience, reap
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

JOB = jobs.NewJob(title="sim", type="User", site="local", body="<Jobs/>")


def stored_numbers(database: Database, job: ObjectId) -> list[int]:
    return [found["instanceId"] for found in database.instances.find({"job": job}, sort=[("instanceId", 1)])]


def test_numbers_continue_where_the_job_left_off(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    assert creation.create_instances(database, job, 3) == range(1, 4)
    assert creation.create_instances(database, job, 2) == range(4, 6)
    assert stored_numbers(database, job) == [1, 2, 3, 4, 5]
    assert counts.of_jobs(database, [job])[job][MajorStatus.NEW] == 5


def test_concurrent_requests_leave_neither_gaps_nor_duplicates(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "CHUNK", 7)
    job = jobs.submit(database, JOB)["_id"]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: creation.create_instances(database, job, 20), range(12)))
    assert sorted(number for numbers in got for number in numbers) == list(range(1, 241))
    assert stored_numbers(database, job) == list(range(1, 241))
    assert counts.of_jobs(database, [job])[job][MajorStatus.NEW] == 240


def test_the_next_request_completes_what_a_crash_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "CHUNK", 4)
    job = jobs.submit(database, JOB)["_id"]
    change, calls = counts.change, iter(range(100))

    def crash_in_third_chunk(*arguments: object) -> None:
        if next(calls) == 2:
            raise PyMongoError("crash")
        change(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(counts, "change", crash_in_third_chunk)
    with pytest.raises(PyMongoError, match="crash"):
        creation.create_instances(database, job, 10, body='{"MetaData": []}')
    assert stored_numbers(database, job) == list(range(1, 9))
    assert counts.of_jobs(database, [job])[job][MajorStatus.NEW] == 8
    assert creation.create_instances(database, job, 1) == range(11, 12)
    assert stored_numbers(database, job) == list(range(1, 12))
    assert database.instances.count_documents({"body": '{"MetaData": []}'}) == 10


def test_a_repeated_request_completes_what_a_crash_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.submit(database, JOB)["_id"]
    with monkeypatch.context() as patched, pytest.raises(PyMongoError, match="crash"):
        patched.setattr(counts, "change", Mock(side_effect=PyMongoError("crash")))
        creation.create_instances(database, job, 5, first=1)
    assert stored_numbers(database, job) == []
    with pytest.raises(Conflict, match="not the next"):
        creation.create_instances(database, job, 5, first=1)
    assert stored_numbers(database, job) == [1, 2, 3, 4, 5]


def test_what_a_crash_left_and_nobody_repeats_is_completed_in_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.submit(database, JOB)["_id"]
    with monkeypatch.context() as patched, pytest.raises(PyMongoError, match="crash"):
        patched.setattr(counts, "change", Mock(side_effect=PyMongoError("crash")))
        creation.create_instances(database, job, 5)
    reap(database, Patience())
    assert stored_numbers(database, job) == [], "it may be under way"
    later = clock.now() + creation.ABANDONED_AFTER
    monkeypatch.setattr(clock, "now", lambda: later)
    reap(database, Patience())
    assert stored_numbers(database, job) == [1, 2, 3, 4, 5]


def test_a_first_number_must_be_the_next_one(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    creation.create_instances(database, job, 3)
    with pytest.raises(Conflict, match="not the next one"):
        creation.create_instances(database, job, 1, first=3)
    assert creation.create_instances(database, job, 1, first=4) == range(4, 5)


@pytest.mark.parametrize("number", [-1, creation.MOST_AT_ONCE + 1])
def test_numbers_out_of_bounds_are_refused(database: Database, number: int) -> None:
    job = jobs.submit(database, JOB)["_id"]
    with pytest.raises(InvalidInput, match="n_instances"):
        creation.create_instances(database, job, number)
    assert stored_numbers(database, job) == []


def test_an_unknown_job_is_said_so(database: Database) -> None:
    with pytest.raises(NotFound):
        creation.create_instances(database, ObjectId(), 1)


def test_the_same_definition_is_the_same_job_and_another_is_refused(database: Database) -> None:
    first = jobs.submit(database, JOB)
    assert jobs.submit(database, JOB)["_id"] == first["_id"]
    other = jobs.NewJob(title="sim", type="User", site="local", body="<Jobs><Job/></Jobs>")
    with pytest.raises(Conflict, match="another definition"):
        jobs.submit(database, other)
    assert jobs.submit(database, other, replace=True)["body"] == other.body


def test_a_job_with_active_instances_is_not_replaced(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    creation.create_instances(database, job, 1)
    database.instances.update_one({"job": job}, {"$set": {"status": "Running"}})
    other = jobs.NewJob(title="sim", type="User", site="local", body="<Jobs><Job/></Jobs>")
    with pytest.raises(Conflict, match="instance 1 is Running"):
        jobs.submit(database, other, replace=True)
    assert jobs.by_id(database, job)["body"] == JOB.body


def test_simultaneous_submissions_make_one_job(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: jobs.submit(database, JOB)["_id"], range(16)))
    assert len(made) == 1
    assert database.counts.count_documents({}) == counts.SLOTS


def test_a_repeated_request_creates_once(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    request = CreationRequest("submit anna", "key", "digest")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: creation.create_instances(database, job, 5, request=request), range(8)))
    assert made == [range(1, 6)] * 8
    assert stored_numbers(database, job) == [1, 2, 3, 4, 5]
    others = (replace(request, sender="submit bert"), replace(request, key="other"))
    for first, other in zip((6, 11), others, strict=True):
        assert creation.create_instances(database, job, 5, request=other) == range(first, first + 5)


def test_a_key_is_good_for_one_request(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    request = CreationRequest("submit anna", "key", "digest")
    creation.create_instances(database, job, 5, request=request)
    with pytest.raises(InvalidInput, match="'key' was used for another request"):
        creation.create_instances(database, job, 6, request=replace(request, digest="another"))
    assert stored_numbers(database, job) == [1, 2, 3, 4, 5]


def test_a_request_with_a_key_completes_what_a_crash_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "CHUNK", 4)
    job = jobs.submit(database, JOB)["_id"]
    request = CreationRequest("submit anna", "key", "digest")
    fill, calls = creation._fill_chunk, iter(range(100))

    def crash_in_second_chunk(*arguments: object) -> bool:
        if next(calls) == 1:
            raise PyMongoError("crash")
        return fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(creation, "_fill_chunk", crash_in_second_chunk)
    with pytest.raises(PyMongoError, match="crash"):
        creation.create_instances(database, job, 10, request=request)
    assert creation.create_instances(database, job, 10, request=request) == range(1, 11)
    assert stored_numbers(database, job) == list(range(1, 11))


def test_a_refused_request_leaves_its_key_free(database: Database) -> None:
    job = jobs.submit(database, JOB)["_id"]
    request = CreationRequest("submit anna", "key", "digest")
    with pytest.raises(Conflict):
        creation.create_instances(database, job, 1, first=2, request=request)
    assert creation.create_instances(database, job, 1, first=1, request=request) == range(1, 2)
