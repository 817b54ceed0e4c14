"""Servers that are started again while everybody is at work: no call of a client fails, and nothing is doubled."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import maintenance
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.served import Served, serve

CLIENTS = 20
SECONDS = 60
XML = '<Jobs><Job name="{}" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'
PAUSE = 0.7  # seconds between the rounds of a client: they need not keep both processors busy


@dataclass
class Work:
    """What one client did, as far as the server said so."""

    title: str
    rounds: int = 0
    added: int = 0
    claimed: list[tuple[str, int]] = field(default_factory=list)
    done: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Crowd:
    """Clients at work."""

    works: list[Work]
    futures: "list[Future[None]]"

    def go_on(self, rounds: int = 1) -> None:
        """Wait until each has done so many more rounds; raises what one of them met."""
        wanted = [work.rounds + rounds for work in self.works]
        for work, number, future in zip(self.works, wanted, self.futures, strict=True):
            _wait(lambda work=work, number=number, future=future: work.rounds >= number or future.done())  # type: ignore[misc]
            if future.done():
                future.result()


def _wait(until: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(SECONDS * 20):
        if until():
            return
        pause.wait(0.05)
    pytest.fail("it did not happen in time")


@contextmanager
def crowd(served: Served) -> Iterator[Crowd]:
    """Let clients submit, claim and report until the block ends; all of their calls have to succeed."""
    stop = threading.Event()
    works = [Work(f"work-{number}") for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        futures = [pool.submit(_labour, served, work, stop) for work in works]
        try:
            yield Crowd(works, futures)
        finally:
            stop.set()
    for future in futures:
        future.result()


def _labour(served: Served, work: Work, stop: threading.Event) -> None:
    with Client(served.url, served.submit_token) as people, Client(served.url, served.site_token) as site:
        people.create_job(XML.format(work.title).encode(), instances=1)
        work.added = 1
        while not stop.wait(PAUSE):
            added = people.add_instances(work.title, "User", 2, site="local")
            assert (added["first"], added["last"]) == (work.added + 1, work.added + 2)
            work.added += 2
            request = f"{work.title}-{work.rounds}"
            for claimed in site.claim("local", 2, agent=work.title, request_id=request)["instances"]:
                work.claimed.append((claimed["job_id"], claimed["instance_id"]))
                _report(site, claimed)
                work.done.append(work.claimed[-1])
            work.rounds += 1


def _report(site: Client, claimed: dict[str, Any]) -> None:
    common = {"t_id": claimed["job_id"], "inst_id": claimed["instance_id"], "attempt": 1, "runner": "runner"}
    results = site.report_many([common | {"sequence": 1, "major_status": "Running", "minor_status": "PreparingJob"}])
    results += [site.report(common | {"sequence": 2, "major_status": "Done", "minor_status": "ApplicationComplete"})]
    assert [result["result"] for result in results] == ["ok", "ok"]


def check(served: Served, works: list[Work]) -> None:
    """Compare what the clients know with what is stored."""
    claimed = Counter(one for work in works for one in work.claimed)
    assert set(claimed.values()) == {1}
    titles = {job["_id"]: job["title"] for job in served.database.jobs.find()}
    found = list(served.database.instances.find())
    assert Counter(titles[instance["job"]] for instance in found) == {work.title: work.added for work in works}
    assert {instance["attempt"] for instance in found} == {0, 1}
    done = {(str(instance["job"]), instance["instanceId"]) for instance in found if instance["status"] == "Done"}
    assert done == {one for work in works for one in work.done}
    assert "differ" not in maintenance.run(served.database, "compare-counts", "test")["result"]


@pytest.fixture(scope="module")
def served(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of one process, which is soon started again."""
    yield from serve(mongod, tmp_path_factory.mktemp("restarted"), "required", "--workers", "1")


def test_a_server_started_again_and_again_fails_no_call(served: Served) -> None:
    with crowd(served) as everybody:
        everybody.go_on()
        for way in (restart, reload, restart):
            way(served)
            everybody.go_on()
    check(served, everybody.works)


def restart(served: Served) -> None:
    served.process.terminate()
    assert served.process.wait(SECONDS) == 0
    served.process = served.launch()


def reload(served: Served) -> None:
    before = workers(served.process.pid)
    served.process.send_signal(signal.SIGHUP)
    _wait(lambda: len(now := workers(served.process.pid)) == len(before) and not now & before)


def workers(master: int) -> set[int]:
    return {child.pid for child in psutil.Process(master).children()}


def test_a_socket_that_outlives_the_server_keeps_its_callers_waiting(served: Served, tmp_path: Path) -> None:
    """As systemd does with a socket unit: who calls while no server runs is served by the next one."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        first = run_server(served, listening, tmp_path)
        try:
            assert requests.get(f"{url}/health", timeout=SECONDS).ok
        finally:
            first.terminate()
            assert first.wait(SECONDS) == 0
        with ThreadPoolExecutor(1) as pool:
            called = pool.submit(requests.get, f"{url}/health", timeout=SECONDS)
            second = run_server(served, listening, tmp_path)
            try:
                assert called.result().ok
            finally:
                second.terminate()
                assert second.wait(SECONDS) == 0


def run_server(served: Served, listening: socket.socket, folder: Path) -> "subprocess.Popen[bytes]":
    """Run ``dampe-server run`` with a socket that is handed to it."""
    program = Path(sys.executable).with_name("dampe-server")
    script = (
        f'export LISTEN_PID=$$ LISTEN_FDS=1; exec {program} run --workers 1 --config {served.settings_path} 3<&"$0"'
    )
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            ["bash", "-c", script, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            env=os.environ,
            stdout=log,
            stderr=log,
        )


def test_a_running_request_is_answered_before_the_server_ends(served: Served) -> None:
    """Half of a body is there when the server is told to end; the rest comes after that. The last: it stays ended."""
    address = urlsplit(served.url)
    body = b'{"hostname": "slow", "process": "p", "version": "1"}'
    head = f"POST /testDB/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.submit_token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as slow:
        slow.sendall(head.encode() + body[:10])
        port = slow.getsockname()[1]
        _wait(lambda: any(_is_connected(worker, port) for worker in workers(served.process.pid)))
        served.process.terminate()
        _wait(lambda: not psutil.Process(served.process.pid).net_connections("tcp"))
        slow.sendall(body[10:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    assert served.process.wait(SECONDS) == 0


def _is_connected(worker: int, port: int) -> bool:
    """Say whether a worker has accepted the connection that comes from a port."""
    found = psutil.Process(worker).net_connections("tcp")
    return any(connection.raddr and connection.raddr.port == port for connection in found)
