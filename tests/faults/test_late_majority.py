"""A primary that knows more than it can show: nobody is told to stop on the word of an older state.

That is how it stands for some moments after each change of the primary; here it lasts, as the other members hang.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from pymongo.write_concern import WriteConcern

from DmpWorkflow.core.database import attempts, creation, heartbeats, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from tests.faults.replica_set import ReplicaSet

SECONDS = 60.0
ALONE_MS = 6_000  # that the primary stays one
WITHOUT_READS = frozenset({"commitTransaction", "update"})  # what can be seen to wait for a majority


class Waiting(CommandListener):
    """Tells when the database was asked for what needs a majority."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.commands: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(event.command_name)
        if event.command_name in WITHOUT_READS:
            self.asked.set()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("majority"), ALONE_MS) as started:
        yield started


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def database(replicas: ReplicaSet, waiting: Waiting) -> Iterator[Database]:
    client = MongoClient[Document](replicas.uri, tz_aware=True, event_listeners=[waiting])
    opened = Database(replicas.uri, "late", client)
    opened.prepare()
    yield opened
    opened.close()


def first_report(database: Database, job: Document) -> Any:
    report = Report(MajorStatus.RUNNING, 1, 1, "runner")
    return apply_report(database, StatusReport(job["_id"], 1, report, {"minor_status": "PreparingJob"}))


def site_of_payload(database: Database, job: Document) -> Any:
    return attempts.site_of_current(database, Principal("attempt", "p", job=str(job["_id"]), instance=1, attempt=1))


def orders(database: Database, job: Document) -> Any:
    beat = {"agent": "a", "hostname": "h", "version": "1"}
    answers = heartbeats.agent_beat(database, beat, "local", [heartbeats.Held(job["_id"], 1, [1])])
    return [str(answer) for answer, _ in answers]


@pytest.mark.parametrize(
    ("ask", "answer"), [(first_report, Outcome.APPLY), (site_of_payload, "local"), (orders, ["adopt"])]
)
def test_a_claim_that_cannot_be_seen_yet_counts(
    replicas: ReplicaSet,
    database: Database,
    waiting: Waiting,
    ask: Callable[[Database, Document], Any],
    answer: Any,
) -> None:
    job = jobs.submit(database, jobs.NewJob(title=ask.__name__, type="User", site="local", body="<Jobs/>"))
    creation.create_instances(database, job["_id"], 1)
    primary = replicas.wait_for_primary()
    others = [member for member in replicas.members if member is not primary]
    for member in others:
        member.freeze()
    try:
        claimed = {"attempt": 1, "handed_out": True, "claimable": False}
        seen_by_one = database.instances.with_options(write_concern=WriteConcern(1))
        seen_by_one.update_one({"job": job["_id"]}, {"$set": claimed})
        assert (database.instances.find_one({"job": job["_id"]}) or {})["attempt"] == 0
        waiting.asked.clear()
        with ThreadPoolExecutor(2) as threads:
            asked = threads.submit(ask, database, job)
            wait([asked, threads.submit(waiting.asked.wait, SECONDS)], SECONDS, FIRST_COMPLETED)
            for member in others:
                member.thaw()
            waiting.asked.set()
            assert asked.result(SECONDS) == answer
    finally:
        for member in others:
            member.thaw()


def test_a_refusal_is_committed_before_it_is_told(database: Database, waiting: Waiting) -> None:
    """Only a commit asks the majority; a primary that is none any more, and does not know it, fails there."""
    job = jobs.submit(database, jobs.NewJob(title="old", type="User", site="local", body="<Jobs/>"))
    creation.create_instances(database, job["_id"], 1)
    for ask in (first_report, site_of_payload):
        waiting.commands.clear()
        with pytest.raises(StaleAttempt):
            ask(database, job)
        assert waiting.commands[-2:] == ["find", "commitTransaction"]
