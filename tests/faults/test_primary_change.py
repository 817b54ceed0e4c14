"""The primary changes during a stream of submissions, claims and reports: late or repeated, but nothing is lost."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import counts, credentials
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import free_port
from DmpWorkflow.utils.errors import Conflict, Unavailable
from tests.faults.installation import PEOPLE, Installation, wait_for
from tests.faults.parts import Part

SECONDS = 120.0
PAUSE = 0.1
STAGES = (("Submitted", "WaitingForExecution"), ("Running", "PreparingJob"), ("Done", "ApplicationComplete"))
XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="/bin/bash">true</JobWrapper></Job></Jobs>'


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("primary"), agents=()) as started:
        yield started


@pytest.fixture(scope="module")
def token(installation: Installation) -> str:
    return credentials.create(installation.database, "client", "admin")[0]


class Stream:
    """Clients who submit instances one by one, claim them and report them Done; each repeats what failed plainly."""

    def __init__(self, url: str, token: str, site: str) -> None:
        self.submitted = 0  # the highest number that was confirmed
        self.done: dict[int, int] = {}  # number and attempt of those whose end was confirmed
        self.repeated = 0
        self.longest = 0.0  # seconds of one call
        self.errors: list[str] = []
        self._url, self._token, self._site = url, token, site
        self._stop = threading.Event()
        self._changed = threading.Condition()
        with Client(url, token) as client:
            self.job: str = client.create_job(XML % site.encode(), site=site)["jobs"][0]["jobID"]
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._submit, self._run)]

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def wait_for_more(self, more: int) -> None:
        """Wait until so many more instances are submitted, and are Done."""
        submitted, done = self.submitted + more, len(self.done) + more
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.errors or (self.submitted >= submitted and len(self.done) >= done), SECONDS
            ), (self.submitted, len(self.done))
        assert not self.errors

    def _guard(self, work: Callable[[Client], None]) -> None:
        with Client(self._url, self._token) as client:
            while not self._stop.is_set():
                try:
                    work(client)
                except Exception as error:
                    self.errors.append(f"{type(error).__name__}: {error}")
                    self._stop.set()
                with self._changed:
                    self._changed.notify_all()

    def _insist(self, call: Callable[[], Any]) -> Any:
        while True:
            began = time.monotonic()
            try:
                return call()
            except Unavailable:
                self.repeated += 1
            finally:
                self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(PAUSE)

    def _submit(self, client: Client) -> None:
        number = self.submitted + 1

        def submit() -> None:
            with suppress(Conflict):  # an earlier try came through
                client.add_instances(self._site, "User", site=self._site, first=number)

        self._insist(submit)
        self.submitted = number

    def _run(self, client: Client) -> None:
        name = uuid.uuid4().hex
        claimed = self._insist(lambda: client.claim(self._site, 4, agent="stream", request_id=name))["instances"]
        for sequence, stage in enumerate(STAGES):
            self._report(client, [_report(instance, sequence, *stage) for instance in claimed])
        self.done |= {instance["instance_id"]: instance["attempt"] for instance in claimed}

    def _report(self, client: Client, reports: Sequence[Mapping[str, Any]]) -> None:
        while reports:
            results = self._insist(lambda: client.report_many(reports))  # noqa: B023 - called at once
            refused = [result for result in results if result["result"] != "ok" and result["status"] != 503]
            assert not refused, refused
            reports = [report for report, result in zip(reports, results, strict=True) if result["result"] != "ok"]


def _report(instance: Mapping[str, Any], sequence: int, status: str, minor: str) -> dict[str, Any]:
    return {
        "t_id": instance["job_id"], "inst_id": instance["instance_id"], "attempt": instance["attempt"],
        "major_status": status, "minor_status": minor, "sequence": sequence, "runner": "r" if sequence else None,
    }  # fmt: skip


def check_all_confirmed(installation: Installation, stream: Stream) -> None:
    database, job = installation.database, ObjectId(stream.job)
    found = {instance["instanceId"]: instance for instance in database.instances.find({"job": job})}
    assert sorted(found)[: stream.submitted] == list(range(1, stream.submitted + 1))
    ended = {number: (found[number]["status"], found[number]["attempt"]) for number in stream.done}
    assert ended == {number: ("Done", attempt) for number, attempt in stream.done.items()}
    assert set(stream.done.values()) == {1}  # no claim was forgotten, or its instances would have been claimed anew
    fresh = database.transaction(lambda session: counts.afresh(database, job, session))
    assert counts.of_jobs(database, [job])[job] == fresh


def step_down(installation: Installation, primary: Part) -> Callable[[], None]:
    assert installation.replicas.step_down()
    return lambda: None


def kill(installation: Installation, primary: Part) -> Callable[[], None]:
    primary.kill()
    return primary.start


def freeze(installation: Installation, primary: Part) -> Callable[[], None]:
    primary.freeze()
    return primary.thaw


@pytest.mark.parametrize(("site", "change"), [("north", step_down), ("south", kill), ("east", freeze)])
def test_nothing_confirmed_is_lost(
    installation: Installation, token: str, site: str, change: Callable[[Installation, Part], Callable[[], None]]
) -> None:
    with Stream(installation.proxy.doors[PEOPLE].url, token, site) as stream:
        stream.wait_for_more(8)
        mend = change(installation, installation.replicas.wait_for_primary())
        try:
            stream.wait_for_more(8)  # while the old primary is away
        finally:
            mend()
        stream.wait_for_more(8)
    print(f"{change.__name__}: {stream.repeated} calls repeated, the longest took {stream.longest:.1f} s")
    assert not stream.errors
    check_all_confirmed(installation, stream)


def test_without_a_majority_the_answer_is_a_plain_503(installation: Installation, token: str) -> None:
    """Of every kind of request: a read, a plain write, a transaction."""
    primary = installation.replicas.wait_for_primary()
    others = [member for member in installation.replicas.members if member is not primary]
    url = installation.proxy.doors[PEOPLE].url
    claim = {"site": "north", "limit": 1, "agent": "a", "request_id": uuid.uuid4().hex}
    submission = {"data": {"site": "north"}, "files": {"file": ("job.xml", XML % b"late")}}
    for member in (primary, others[0]):
        member.kill()
    try:
        for method, path, content in (
            ("GET", "/job/", {}),
            ("POST", "/newjobs/", {"json": claim}),
            ("POST", "/job/", submission),
        ):
            began = time.monotonic()
            reply = requests.request(
                method, url + path, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS, **content
            )
            print(f"{method} {path}: {reply.status_code} after {time.monotonic() - began:.1f} s")
            assert (reply.status_code, reply.json()["result"]) == (503, "nok")
            assert int(reply.headers["Retry-After"]) > 0
    finally:
        for member in (primary, others[0]):
            member.start()
    installation.replicas.wait_for_primary()
    with Client(url, token) as client:
        assert client.create_job(XML % b"late", site="north")["jobs"][0]["title"] == "late"


def test_a_transaction_without_a_primary_is_refused_at_once() -> None:
    nowhere = f"mongodb://127.0.0.1:{free_port()}/?replicaSet=none"
    database = Database(nowhere, "none", MongoClient(nowhere, serverSelectionTimeoutMS=100))
    try:
        with pytest.raises(Unavailable, match="no primary"):
            database.transaction(lambda session: database.jobs.find_one(session=session))
    finally:
        database.close()


def test_a_server_that_is_started_waits_for_a_primary(installation: Installation) -> None:
    members, (server, other) = installation.replicas.members, installation.servers
    server.stop()
    for member in members[:2]:
        member.kill()
    try:
        while installation.replicas.primary():  # the last member may have been it, and be so for a moment
            time.sleep(PAUSE)
        server.start()
        installation.wait_for_words(server.log, "trying again")
    finally:
        for member in members[:2]:
            member.start()
    other.stop()  # so that it is the one that answers
    try:
        with Client(installation.proxy.doors[PEOPLE].url) as client:
            wait_for(client)
    finally:
        other.start()
    assert "Traceback" not in server.log.read_text().rpartition("Starting gunicorn")[2]
