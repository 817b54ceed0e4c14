"""Creation that is repeated because nobody heard of its success: nothing is made twice, and nothing is missing."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import maintenance
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.lossy_proxy import LossyProxy, lossy_proxy
from tests.served import Served, serve

ONE = '<Job name="{}" type="User"><JobWrapper executable="bash">true</JobWrapper></Job>'
POINTS = ("in the transaction", "before the instances", "between two chunks", "before the reply")
NUMBER = 25


def xml(*names: str) -> bytes:
    return f"<Jobs>{''.join(map(ONE.format, names))}</Jobs>".encode()


def port_of(served: Served) -> int:
    port = urlsplit(served.url).port
    assert port is not None
    return port


@pytest.fixture
def proxy(served: Served) -> Iterator[LossyProxy]:
    """A way to the server on which replies can be lost."""
    with lossy_proxy(port_of(served)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def crashing(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of one process that can be killed in the middle of something."""
    options = ("--workers", "1", "tests.faults.crashing_wsgi:app")
    for served in serve(mongod, tmp_path_factory.mktemp("crashing"), "required", *options):
        # An open transaction of a server that is gone hinders others for so long.
        limit = {"setParameter": 1, "transactionLifetimeLimitSeconds": 1}
        usual = served.database.client.admin.command(limit)["was"]
        yield served
        served.database.client.admin.command(limit | {"transactionLifetimeLimitSeconds": usual})


def check(served: Served, row: dict[str, Any], number: int) -> None:
    """See that a job has exactly these instances, and its counts say so."""
    job = Client(served.url, served.read_token).job(row["slug"])
    assert job["counts"]["New"] == number
    numbers = [found["instanceId"] for found in served.database.instances.find({"job": _id(served, row)})]
    assert sorted(numbers) == list(range(1, number + 1))
    assert "differ" not in maintenance.run(served.database, "compare-counts", "test")["result"]


def _id(served: Served, row: dict[str, Any]) -> Any:
    found = served.database.jobs.find_one({"slug": row["slug"]}, {"_id": 1})
    assert found is not None
    return found["_id"]


def test_a_lost_reply_makes_nothing_twice(served: Served, proxy: LossyProxy) -> None:
    with Client(proxy.url, served.submit_token) as people:
        proxy.losses = 2
        made = people.create_job(xml("first", "second"), instances=NUMBER)
        assert [(row["first"], row["last"]) for row in made["jobs"]] == [(1, NUMBER)] * 2
        assert made["warnings"] == []
        proxy.losses = 1
        added = people.add_instances("first", "User", 5, site="local")
        assert (added["first"], added["last"]) == (NUMBER + 1, NUMBER + 5)
        proxy.losses = 1
        (copy,) = people.clone_job(made["jobs"][0]["slug"], "copy", 3)["jobs"]
        again = people.add_instances("copy", "User", 2, site="local")  # meant, and not a repetition
    assert (copy["first"], copy["last"], again["first"], again["last"]) == (1, 3, 4, 5)
    assert proxy.lost == 4
    for row, number in zip([*made["jobs"], copy], (NUMBER + 5, NUMBER, 5), strict=True):
        check(served, row, number)


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_in_between_makes_nothing_twice(crashing: Served, point: str) -> None:
    crash = crashing.settings_path.with_name("crash")
    name = point.replace(" ", "-")
    with Client(crashing.url, crashing.submit_token) as people:
        crash.write_text(point)
        made = people.create_job(xml(f"{name}-1", f"{name}-2"), instances=NUMBER)
        assert not crash.exists()
        assert [(row["first"], row["last"]) for row in made["jobs"]] == [(1, NUMBER)] * 2
    for row in made["jobs"]:
        check(crashing, row, NUMBER)


def test_a_server_killed_while_it_adds_instances_adds_them_once(crashing: Served) -> None:
    crash = crashing.settings_path.with_name("crash")
    with Client(crashing.url, crashing.submit_token) as people:
        (row,) = people.create_job(xml("grows"), instances=1)["jobs"]
        crash.write_text("before the instances")
        added = people.add_instances("grows", "User", NUMBER, site="local")
    assert not crash.exists()
    assert (added["first"], added["last"]) == (2, NUMBER + 1)
    check(crashing, row, NUMBER + 1)


def post(served: Served, token: str, key: str | None, number: int) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key is not None else {})
    body = {"taskname": "keyed", "tasktype": "User", "site": "local", "n_instances": number}
    return requests.post(f"{served.url}/jobInstances/", json=body, headers=headers, timeout=60)


def test_a_key_stands_for_one_request_of_one_sender(served: Served) -> None:
    with Client(served.url, served.submit_token) as people:
        people.create_job(xml("keyed"))
    first = post(served, served.submit_token, "key", 2)
    assert (first.status_code, first.json()["first"]) == (200, 1)
    assert post(served, served.submit_token, "key", 2).json() == first.json()
    other = post(served, served.submit_token, "key", 3)
    assert (other.status_code, "was used for another request" in other.json()["error"]) == (422, True)
    assert post(served, served.admin_token, "key", 2).json()["first"] == 3
    assert [post(served, served.submit_token, None, 1).json()["first"] for _ in range(2)] == [5, 6]
    bad = post(served, served.submit_token, "two words", 1)
    assert (bad.status_code, "printable ASCII" in bad.json()["error"]) == (422, True)
