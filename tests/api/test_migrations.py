"""Databases that earlier versions of the program filled (tests/data: recorded with their own code) work on."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from bson import ObjectId, json_util
from pymongo.read_concern import ReadConcern

from DmpWorkflow.core.database import checking, claims, clock, credentials, maintenance, migrations, schema
from DmpWorkflow.core.database.backup import back_up
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.restore import restore
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.database.work import claim_work
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report
from DmpWorkflow.utils.errors import ConfigurationError, Conflict
from tests.served import serve

RECORDED = sorted((Path(__file__).parents[1] / "data").glob("schema_*.json"))
FIRST = [path for path in RECORDED if path.stem.startswith("schema_1_")]
SECOND = next(path for path in RECORDED if path.stem == "schema_2")
PAGES = ("/", "/jobs/", "/sites/", "/sites/local", "/catalogue/", "/admin/")
PAGES_OF_JOB = ("", "?status=Failed", "/2", "/failures", "/job.xml")
names = iter(range(1000))


@pytest.fixture
def old(mongod: EmbeddedMongod, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database as an earlier version left it, with its documents and indexes."""
    opened = Database(mongod.uri, f"old_{next(names)}")
    for name, recorded in json_util.loads(getattr(request, "param", RECORDED[0]).read_text()).items():
        collection = opened.collection(name)
        for index, options in recorded["indexes"].items():
            key = [tuple(part) for part in options.pop("key")]
            collection.create_index(key, name=index, **options)
        if recorded["documents"]:
            collection.insert_many(recorded["documents"])
    yield opened
    opened.client.drop_database(opened.name)
    opened.close()


@pytest.mark.parametrize("old", FIRST, ids=lambda path: path.stem, indirect=True)
def test_what_the_first_version_stored_is_used_on(old: Database, mongod: EmbeddedMongod, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"schema 1, and this program needs 3: .* dampe-server migrate"):
        old.prepare()
    said: list[str] = []
    assert migrations.migrate(old, said.append) == [2, 3]
    assert said == [
        "schema 1 becomes 2", "jobs are done", "16 instances are done", "schema 2 becomes 3", "16 instances are done"
    ]  # fmt: skip
    assert migrations.migrate(old) == []
    old.prepare()
    assert_sound(old)
    assert "claimable" not in old.instances.index_information()
    assert "created_at_-1" not in old.files.index_information()
    stored = {found["instanceId"]: found for found in old.instances.find({"status": {"$ne": "New"}})}
    lines = {number: found.get("last_line") for number, found in stored.items()}
    assert lines == {1: "is well", 2: "error: no such file", 3: None, 5: None}
    assert [number for number, found in stored.items() if "started_at" in found] == [1, 2, 3]
    assert stored[3]["started_at"] == stored[3]["status_history"][1]["update"]
    assert maintenance.compare_counts(old) == "the counts of 2 jobs are exact"
    # What runs goes on, what waits is handed out as this version does it, and the pages show it.
    parent = stored[1]["job"]
    running = StatusReport(parent, 3, Report(MajorStatus.DONE, 1, 3, "runner"), {"log": "bye"})
    assert apply_report(old, running) is Outcome.APPLY
    request = claims.ClaimRequest("local", "agent", "request2", 100, timedelta(minutes=10))
    taken = claim_work(old, request, credentials.secret(old))
    assert sorted((got["instance_id"], got["attempt"]) for got in taken["instances"]) == [
        (1, 1), (3, 1), (4, 2), (7, 1), (8, 1)
    ]  # fmt: skip
    assert maintenance.compare_counts(old) == "the counts of 2 jobs are exact"
    assert "error: no such file" in failures_page(old, parent, mongod, tmp_path)


@pytest.mark.parametrize("old", [SECOND], ids=["schema_2"], indirect=True)
def test_what_the_second_version_stored_is_used_on(old: Database, mongod: EmbeddedMongod, tmp_path: Path) -> None:
    leased = old.instances.find_one({"claim.expires": {"$exists": True}}) or {}
    assert migrations.migrate(old) == [3]
    old.prepare()
    assert_sound(old)
    assert not old.instances.count_documents(
        {"$or": [{"claim.expires": {"$ne": None}}, {"not_before": {"$ne": None}}]}
    )
    assert {"claims", "leases", "pauses", "silence"}.isdisjoint(old.instances.index_information())
    waiting = {found["instanceId"]: found for found in old.instances.find({"waits_until": {"$exists": True}})}
    assert sorted(waiting) == [4, 6, 7]  # 4 and 7 pause before a retry, 6 is leased
    assert waiting[6]["waits_until"] == leased["claim"]["expires"]
    repeated = claims.ClaimRequest("local", "agent", "request1", 6, timedelta(minutes=10))
    assert {found["instanceId"] for found in claims.claim(old, repeated)} == {3, 5, 6}
    request = claims.ClaimRequest("local", "agent", "request2", 100, timedelta(minutes=10))
    taken = claims.claim(old, request)  # the pause of 4 is over, that of 7 and the lease are not
    assert [(found["instanceId"], found["attempt"]) for found in taken] == [(4, 3), (8, 1), (1, 1)]
    assert maintenance.compare_counts(old) == "the counts of 2 jobs are exact"
    assert "error: no such file" in failures_page(old, leased["job"], mongod, tmp_path)


def assert_sound(database: Database) -> None:
    """Everything is as this version declares it, and holds what it must."""
    for document in DOCUMENTS:
        collection = database.collection(document._meta["collection"]).with_options(read_concern=ReadConcern("local"))
        for found in collection.find():
            document._from_son(found).validate()
    assert checking.check(database).holds, checking.check(database).in_words()


def failures_page(database: Database, job: ObjectId, mongod: EmbeddedMongod, folder: Path) -> str:
    """Look at all pages, and return one."""
    slug = (database.jobs.find_one({"_id": job}) or {})["slug"]
    text = ""
    for server in serve(mongod, folder, "off", name=database.name):
        pages = {page: requests.get(server.url + page, timeout=60) for page in PAGES}
        of_job = {page: requests.get(f"{server.url}/jobs/{slug}{page}", timeout=60) for page in PAGES_OF_JOB}
        assert {page: reply.status_code for page, reply in (pages | of_job).items()} == dict.fromkeys(
            PAGES + PAGES_OF_JOB, 200
        )
        text = of_job["/failures"].text
    return text


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("old", "runs"), [(FIRST[0], 8), (SECOND, 6)], ids=["1", "2"], indirect=["old"])
def test_a_migration_that_is_killed_anywhere_is_repeated(
    old: Database, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "CHUNK", 5)
    steps = 0

    def die_at(number: int) -> None:
        def count(_: str) -> None:
            nonlocal steps
            steps += 1
            if steps == number:
                raise Killed

        migrations.migrate(old, count)

    for number in range(1, 100):
        steps = 0
        try:
            die_at(number)
        except Killed:
            with pytest.raises(ConfigurationError):
                old.prepare()
            with pytest.raises(Conflict, match="another process migrates"):
                migrations.migrate(old)
            later = clock.now() + migrations.LEASE * (number + 1)
            monkeypatch.setattr(clock, "now", lambda later=later: later)
            continue
        break
    assert (
        number == runs
    )  # each version begins, jobs, and sixteen instances by fives; one run after the first is short
    old.prepare()
    assert old.instances.count_documents({"last_line": {"$exists": True}}) == 2


@pytest.mark.parametrize("old", [SECOND], ids=["2"], indirect=True)
def test_what_an_old_server_did_after_an_interruption_counts(old: Database) -> None:
    """Nobody should start one then, but who does so loses nothing."""
    migrations._join_leases_and_pauses(old, lambda _: None)
    later = clock.now() + timedelta(days=3)
    lease = {"claim": {"request": "r", "agent": "a", "expires": later}, "handed_out": True}
    old.instances.update_one({"instanceId": 6, "claim": {"$exists": True}}, {"$set": lease})
    ended = {"status": "Done", "claimable": False}
    job = (old.instances.find_one({"claim.expires": later}) or {})["job"]
    old.instances.update_one({"job": job, "instanceId": 7}, {"$set": ended, "$unset": {"not_before": ""}})
    assert migrations.migrate(old) == [3]
    found = {one["instanceId"]: one for one in old.instances.find({"job": job})}
    assert found[6]["waits_until"] == later.replace(microsecond=later.microsecond // 1000 * 1000)
    assert "waits_until" not in found[7]


def test_of_two_at_once_one_migrates(old: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: str) -> None:
        begun.set()
        assert go_on.wait(60)

    reached: list[int] = []
    first = threading.Thread(target=lambda: reached.extend(migrations.migrate(old, wait)))
    first.start()
    assert begun.wait(60)
    with pytest.raises(Conflict, match="wait for it"):
        migrations.migrate(old)
    go_on.set()
    first.join(60)
    assert reached == [2, 3] and migrations.migrate(old) == []


def test_a_newer_schema_is_refused(database: Database) -> None:
    schema.set_version(database, schema.VERSION + 1)
    for refused in (database.prepare, lambda: migrations.migrate(database)):
        with pytest.raises(ConfigurationError, match="upgrade the program"):
            refused()


def test_an_old_database_is_backed_up_as_it_is_and_migrated_when_it_is_restored(
    old: Database, database: Database, tmp_path: Path
) -> None:
    back_up(old, tmp_path / "backup")
    restore(database, tmp_path / "backup")
    database.prepare()
    assert database.jobs.count_documents({"archived": False}) == 2
    with pytest.raises(ConfigurationError):
        old.prepare()
