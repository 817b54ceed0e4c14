"""Instances found among those of a job, and orders for all that match."""

from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import instance_search
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.instance_search import InstanceFilter, numbers, search, statuses
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput
from tests.api.test_documents import plan
from tests.api.test_reporting import claim_all, make_job, report
from tests.served import Served

XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'


def run(database: Database, job: ObjectId, number: int, status: MajorStatus, **values: Any) -> None:
    apply_report(database, report(job, number, status, 1, **values))


@pytest.fixture
def job(database: Database) -> ObjectId:
    """A job with six instances: 1 and 4 failed, 2 is done, 3 runs, 5 and 6 wait."""
    made = make_job(database, 6)
    claim_all(database)
    run(database, made, 1, MajorStatus.FAILED, minor_status="Broken", hostname="wn1", cpu=5, memory=9, log="a [x]\nb")
    run(database, made, 2, MajorStatus.DONE, minor_status="Complete", hostname="wn2", cpu=3, log="all well")
    run(database, made, 3, MajorStatus.RUNNING, minor_status="Busy", hostname="wn1", cpu=4, memory=1)
    run(database, made, 4, MajorStatus.FAILED, minor_status="Lost", hostname="wn2", memory=1)
    return made


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (InstanceFilter(), [1, 2, 3, 4, 5, 6]),
        (InstanceFilter(statuses=statuses("Failed")), [1, 4]),
        (InstanceFilter(statuses=statuses("Failed, Running")), [1, 3, 4]),
        (InstanceFilter(statuses=statuses("Any"), n_min=1, n_max=4), [2, 3, 4]),
        (InstanceFilter(minor_status="Broken"), [1]),
        (InstanceFilter(host="wn2"), [2, 4]),
        (InstanceFilter(statuses=statuses("Failed"), host="wn2"), [4]),
        (InstanceFilter(text="[x]"), [1]),
        (InstanceFilter(text="a.*b"), []),
        (InstanceFilter(text="ALL"), []),
    ],
)
def test_instances_are_found_by_what_they_are(
    database: Database, job: ObjectId, chosen: InstanceFilter, found: list[int]
) -> None:
    rows, following = search(database, job, chosen)
    assert ([row["instance_id"] for row in rows], following) == (found, None)
    assert numbers(database, job, chosen) == found


@pytest.mark.parametrize(
    ("sort", "ascending"),
    [
        ("number", [1, 2, 3, 4, 5, 6]),
        ("host", [5, 6, 1, 3, 2, 4]),
        ("attempt", [1, 2, 3, 4, 5, 6]),
        ("cpu_peak", [4, 5, 6, 2, 3, 1]),
        ("memory_peak", [2, 5, 6, 3, 4, 1]),
        ("last_update", [5, 6, 1, 2, 3, 4]),
    ],
)
def test_every_order_is_paged_both_ways_without_gap_or_repeat(
    database: Database, job: ObjectId, sort: str, ascending: list[int]
) -> None:
    database.instances.update_many({"instanceId": {"$gt": 4}}, {"$unset": {"hostname": ""}})
    for descending in (False, True):
        seen: list[int] = []
        cursor: int | str | None = ""
        while cursor is not None:
            rows, cursor = search(database, job, InstanceFilter(), sort, descending, 1, str(cursor))
            seen += [row["instance_id"] for row in rows]
        assert seen == (ascending[::-1] if descending else ascending)


def test_a_page_may_begin_anywhere(database: Database, job: ObjectId) -> None:
    rows, after = search(database, job, InstanceFilter(n_min=1), limit=2, after="2")
    assert ([row["instance_id"] for row in rows], after) == ([3, 4], 4)
    rows, after = search(database, job, InstanceFilter(), "number", True, 2, "3")
    assert ([row["instance_id"] for row in rows], after) == ([2, 1], None)


def test_rows_tell_of_peaks_and_the_last_line(database: Database, job: ObjectId) -> None:
    database.instances.update_one({"job": job, "instanceId": 1}, {"$set": {"last_line": "b"}})
    first, second, *_ = search(database, job, InstanceFilter())[0]
    assert (first["cpu_peak"], first["memory_peak"], first["last_line"]) == (5.0, 9.0, "b")
    assert (second["cpu_peak"], second["memory_peak"], second["last_line"]) == (3.0, None, "all well")


@pytest.mark.parametrize(
    ("sort", "after"),
    [("number", "x"), ("number", "1-2"), ("number", "9" * 30), ("last_update", f"1-{'9' * 18}"), ("cpu_peak", "1-x")],
)
def test_a_cursor_that_is_none_is_refused(database: Database, job: ObjectId, sort: str, after: str) -> None:
    with pytest.raises(InvalidInput, match="is no cursor"):
        search(database, job, InstanceFilter(), sort, after=after)


def test_what_cannot_be_asked_is_said_plainly(database: Database, job: ObjectId) -> None:
    with pytest.raises(InvalidInput, match="status 'Nonsense'"):
        statuses("Done,Nonsense")
    with pytest.raises(InvalidInput, match="sort 'size': expected one of number"):
        search(database, job, InstanceFilter(), "size")


def test_a_search_that_takes_too_long_ends_and_says_how_to_narrow_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(database, 4000)
    database.instances.update_many({"job": job}, {"$set": {"log": "all is well\n" * 2000}})
    monkeypatch.setattr(instance_search, "MOST_MILLISECONDS", 1)
    monkeypatch.setattr(instance_search, "MOST_MILLISECONDS_OF_AN_ORDER", 1)
    for read in (search, numbers):
        with pytest.raises(instance_search.TooMany, match="narrow it by status or numbers"):
            read(database, job, InstanceFilter(text="not there"))
    monkeypatch.undo()
    assert search(database, job, InstanceFilter(text="not there", n_max=0)) == ([], None)


def test_numbers_and_statuses_are_found_by_an_index(database: Database) -> None:
    job = make_job(database, 50)
    claim_all(database)
    for number in (10, 20, 30):
        run(database, job, number, MajorStatus.FAILED)
    by_number = {"sort": [("instanceId", 1)], "limit": 2}
    bounded = InstanceFilter(n_min=5, n_max=9).query(job)
    assert plan(database, database.instances, bounded, **by_number) == ("job_1_instanceId_1", 2, 2)
    failed = InstanceFilter(statuses=(MajorStatus.FAILED, MajorStatus.DONE), n_min=15).query(job)
    name, keys, documents = plan(database, database.instances, failed, **by_number)
    assert (name, documents) == ("SORT_MERGE", 2) and keys <= 4, "a range of the index for each status"
    failed = InstanceFilter(statuses=(MajorStatus.FAILED,)).query(job)
    only_numbers = {"projection": {"instanceId": 1, "_id": 0}, "sort": [("instanceId", 1)]}
    found = plan(database, database.instances, failed, **only_numbers)
    assert found[0] == "job_1_status_1_instanceId_1" and found[2] == 0, "numbers come from the index alone"


def test_lists_and_orders_over_http(served: Served) -> None:
    client = Client(served.url, served.admin_token)
    made = client.create_job(XML % b"searched", instances=6)["jobs"][0]
    for number, host in ((1, "wn1"), (2, "wn2"), (3, "wn1")):
        named = {"t_id": made["jobID"], "inst_id": number, "minor_status": "Broken", "hostname": host}
        client.report(named | {"major_status": "Submitted"})
        client.report(named | {"major_status": "Failed", "cpu": number, "log": f"line {number}"})
    slug = made["slug"]

    def found(**chosen: Any) -> list[int]:
        return [row["instance_id"] for row in client.instances(slug, **chosen)]

    assert found(status="Failed,Done", host="wn1") == [1, 3]
    assert found(minor_status="Broken", sort="cpu_peak", descending=True) == [3, 2, 1]
    assert found(text="line 2") == [2]
    assert found(n_min=1, n_max=3, after=2) == [3]
    token = {"Authorization": f"Bearer {served.read_token}"}
    path = f"{served.url}/job/{slug}/instances/"
    page = requests.get(path, params={"sort": "host", "limit": "4"}, headers=token, timeout=60).json()
    assert ([row["instance_id"] for row in page["instances"]], page["next"]) == ([4, 5, 6, 1], "1-wn1")
    assert client.roll_back(slug, host="wn1", text="line 3") == 1
    assert found(status="Failed") == [1, 2]
    assert client.kill(slug, host="wn2") == {"result": "ok", "ended": 0, "ordered": 0}
    assert client.kill(slug, status="New", n_max=4)["ended"] == 2
    assert found(status="Terminated") == [3, 4]
