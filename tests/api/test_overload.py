"""A real server with more requests than it can serve: what sites need goes on, and the rest is refused at once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from DmpWorkflow.client import Client
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.frontend import serving
from DmpWorkflow.frontend.admission import Kind, bounds
from tests.served import Served, serve

BOUNDS = bounds(serving.threads)
MANY = 150  # requests at once
XML = b'<Jobs><Job name="busy" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'
SECONDS = 60
MEGABYTE = 1024**2
LARGE = b"x" * (17 * MEGABYTE)


@pytest.fixture(scope="module")
def slow(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of one process whose lists and exports take until the gate opens."""
    options = ("--workers", "1", "tests.api.gated_wsgi:app")
    yield from serve(mongod, tmp_path_factory.mktemp("slow"), "required", *options)


@pytest.fixture
def gate(slow: Served) -> Iterator[Path]:
    """What lets lists and exports go on."""
    gate = slow.settings_path.with_name("gate")
    yield gate
    gate.unlink(missing_ok=True)


def ask(slow: Served, path: str, accept: str = "application/json") -> requests.Response:
    headers = {"Authorization": f"Bearer {slow.admin_token}", "Accept": accept}
    return requests.get(slow.url + path, headers=headers, timeout=SECONDS)


def refused(asked: set[Future[requests.Response]], number: int) -> list[requests.Response]:
    """Wait for so many replies, all of them refusals."""
    while len(done := [future for future in asked if future.done()]) < number:
        assert wait(asked - set(done), SECONDS, return_when="FIRST_COMPLETED").done, f"{len(done)} refusals"
    return [future.result() for future in done]


def memory(slow: Served) -> float:
    """Return the MB of the process that serves."""
    (worker,) = psutil.Process(slow.process.pid).children()
    return worker.memory_info().rss / MEGABYTE


@pytest.mark.parametrize("kind", [Kind.LIST, Kind.EXPORT])
def test_reports_go_on_while_lists_are_refused(slow: Served, gate: Path, kind: Kind) -> None:
    people = Client(slow.url, slow.submit_token)
    site = Client(slow.url, slow.site_token)
    made = people.create_job(XML, instances=1)["jobs"][0]
    path = "/job/" if kind is Kind.LIST else f"/job/{made['slug']}/export/"
    ask(slow, "/statistics/sites/")
    before = memory(slow)
    with ThreadPoolExecutor(MANY) as pool:
        asked = {pool.submit(ask, slow, path) for _ in range(MANY)}
        try:
            for reply in refused(asked, MANY - BOUNDS[kind].at_once):
                assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
                assert "too much to do" in reply.json()["error"]
            work = site.claim("local", 1, agent="agent", request_id=made["slug"])["instances"]
            (instance,) = work
            report = {"t_id": instance["job_id"], "inst_id": instance["instance_id"], "attempt": 1, "sequence": 1}
            site.report(report | {"major_status": "Running", "minor_status": "PreparingJob", "runner": "r"})
            site.agent_heartbeat({"site": "local", "agent": "agent", "hostname": "h", "version": "3"}, [])
            people.add_instances("busy", "User", 1, site="local")
            assert slow.database.instances.count_documents({"status": "Running"}) >= 1
            assert memory(slow) - before < 100
        finally:
            gate.touch()
    assert Counter(future.result().status_code for future in asked)[200] == BOUNDS[kind].at_once
    assert ask(slow, path).status_code == 200  # and their places are free again


def test_a_refused_page_is_a_page(slow: Served, gate: Path) -> None:
    number = BOUNDS[Kind.LIST].at_once
    with ThreadPoolExecutor(number + 1) as pool:
        asked = {pool.submit(ask, slow, "/job/") for _ in range(number + 1)}
        try:
            refused(asked, 1)
            page = ask(slow, "/jobs/", "text/html")
            assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
            assert "too much to do" in page.text and page.headers["Content-Security-Policy"]
        finally:
            gate.touch()


@pytest.mark.parametrize("content", [{"data": LARGE}, {"files": {"file": ("job.xml", LARGE)}}])
def test_a_large_body_is_refused_plainly(slow: Served, content: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {slow.admin_token}"}
    reply = requests.post(f"{slow.url}/job/", headers=headers, timeout=SECONDS, **content)
    assert (reply.status_code, "Too Large" in reply.json()["error"]) == (413, True)


def test_a_body_that_hides_its_length_is_read_no_further(slow: Served) -> None:
    headers = {"Authorization": f"Bearer {slow.admin_token}", "Content-Type": "application/json"}
    before = memory(slow)
    reply = requests.post(f"{slow.url}/newjobs/", headers=headers, timeout=SECONDS, data=iter([LARGE] * 10))
    assert (reply.status_code, reply.json()["result"]) == (400, "nok")
    assert memory(slow) - before < 100
