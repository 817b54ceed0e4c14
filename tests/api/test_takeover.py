"""The takeover of the original's database: everything comes along, dirty as it is, and can come again."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bson import ObjectId
from click.testing import CliRunner, Result
from pymongo.database import Database as Source
from pymongo.read_concern import ReadConcern

from DmpWorkflow.core.database import claims, clock, credentials, legacy, maintenance, migrations, takeover
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reaper import Patience, Reaped, reap
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.database.submission import Words
from DmpWorkflow.core.database.takeover_report import Report as Told
from DmpWorkflow.core.database.work import claim_work
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from DmpWorkflow.frontend.cli.main import dampe_server
from DmpWorkflow.utils.errors import ConfigurationError, InvalidInput, Unavailable
from tests import original
from tests.served import CONFIGURATION

ROME = ZoneInfo("Europe/Rome")
WORDS = Words(types=("User",), sites=("TEST",))
SECRET = b"secret"
TITLE_CHANGED = "a title that cannot be the name of a folder: changed"
names = iter(range(1000))


@pytest.fixture
def source(mongod: EmbeddedMongod, database: Database) -> Iterator[Source[Document]]:
    """The original's database, empty."""
    name = f"original_{next(names)}"
    yield database.client.get_database(name)
    database.client.drop_database(name)


def take(database: Database, source: Source[Document], dry_run: bool = False) -> Told:
    uri = f"mongodb://{database.client.address[0]}:{database.client.address[1]}/{source.name}?directConnection=true"  # type: ignore[index]
    with takeover.opened(uri) as opened:
        return takeover.take_over(database, opened, ROME, WORDS, dry_run)


def claim(database: Database, request: str = "r1") -> set[tuple[ObjectId, int]]:
    asked = claims.ClaimRequest("TEST", "agent", request, 5000, timedelta(minutes=10))
    return {(ObjectId(got["job_id"]), got["instance_id"]) for got in claim_work(database, asked, SECRET)["instances"]}


def assert_it_is_sound(database: Database) -> None:
    assert maintenance.compare_counts(database).endswith("are exact")
    for document in DOCUMENTS:
        collection = database.collection(document._meta["collection"])
        for found in collection.with_options(read_concern=ReadConcern("local")).find():
            document._from_son(found).validate()


def test_everything_comes_along(database: Database, source: Source[Document]) -> None:
    original.fill(source, jobs=4, instances=400)
    report = take(database, source)
    assert dict(report.taken) == {"new jobs": 4, "new instances": 1600, "new files": 5, "heartbeats": 1}
    assert not report.skipped and not report.doubtful
    old = {one["_id"]: one for one in source["job_instance"].find()}
    new = {one["_id"]: one for one in database.instances.find()}
    assert {i: (one["status"], one["instanceId"], one["job"]) for i, one in old.items()} == {
        i: (one["status"], one["instanceId"], one["job"]) for i, one in new.items()
    }
    assert {job["_id"]: job["slug"] for job in source["job"].find()} == {
        job["_id"]: job["slug"] for job in database.jobs.find({"owner": "", "allotted": 400, "archived": False})
    }
    for empty in (database.activity, database.failures, database.distributions, database.snapshots, database.hosts):
        assert empty.count_documents({}) == 0, empty.name
    assert_it_is_sound(database)
    assert not source["job"].find_one({"digest": {"$exists": True}})


def test_one_instance_in_full(database: Database, source: Source[Document]) -> None:
    job = original.make_job(source, "sim")
    stored = original.instance(job, 7, "Failed", cpu_max=86400, Nevents=12)
    source["job_instance"].insert_one(stored)
    source["job"].update_one({"_id": job}, {"$set": {"jobInstances": [stored["_id"]]}})
    take(database, source)
    times = [datetime(2016, 7, 1, 10, minute, tzinfo=UTC) for minute in (0, 10, 20, 30)]  # Rome has summer
    statuses = ("New", "Submitted", "Running", "Failed")
    samples = [{"time": time, "value": 12.5 * step} for step, time in enumerate(times)]
    assert database.instances.find_one() == {
        "_id": stored["_id"], "_cls": "JobInstance", "job": job, "instanceId": 7, "site": "TEST", "priority": 0,
        "created_at": times[0], "last_update": times[3], "taken_over": times[3], "status": "Failed",
        "minor_status": "MinorFailed", "attempt": 1, "handed_out": True, "active": False, "claimable": False,
        "body": json.dumps({
            "InputFiles": [], "OutputFiles": [],
            "MetaData": [{"name": "SEED", "value": "7", "var_type": "string"}],
        }),
        "status_history": [
            {"status": status, "minor_status": f"Minor{status}", "update": time}
            for status, time in zip(statuses, times, strict=True)
        ],
        "started_at": times[2], "batchId": "1007", "hostname": "wn042", "Nevents": 12, "cpu_max": 86400.0,
        "mem_max": 4000.0, "cpu": samples, "memory": samples, "cpu_peak": 37.5, "memory_peak": 37.5,
        "log": "stage in\nno such file\n", "last_line": "no such file",
    }  # fmt: skip


def test_work_goes_on(database: Database, source: Source[Document]) -> None:
    parent = original.make_job(source, "parent")
    child = original.make_job(source, "child", (parent,))
    statuses = ("Done", "New", "Running", "Submitted")
    source["job_instance"].insert_many(  # children first: the order does not matter
        [original.instance(child, number, "New") for number in range(1, 6)]
        + [original.instance(parent, number, status) for number, status in enumerate(statuses, 1)]
    )
    take(database, source)
    assert claim(database) == {(child, 1), (parent, 2)}

    def report(number: int, status: MajorStatus, batch_id: str) -> Outcome:
        return apply_report(database, StatusReport(parent, number, Report(status), {"batchId": batch_id}))

    assert report(3, MajorStatus.DONE, "1003") is Outcome.APPLY  # by a client of the original
    assert report(4, MajorStatus.RUNNING, "1004") is Outcome.APPLY
    with pytest.raises(StaleAttempt):
        report(4, MajorStatus.RUNNING, "999")
    assert claim(database, "r2") == {(child, 3)}
    roll_back(database, parent, [1, 3])
    assert claim(database, "r3") == {(parent, 1), (parent, 3)}
    assert {one["instanceId"]: one["attempt"] for one in database.instances.find({"job": parent})} == {
        1: 2, 2: 1, 3: 2, 4: 1
    }  # fmt: skip
    assert_it_is_sound(database)


def test_what_ran_is_given_up_if_nobody_hears_of_it_again(
    database: Database, source: Source[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = original.make_job(source, "sim")
    source["job_instance"].insert_many([original.instance(job, 1, "Running"), original.instance(job, 2, "Submitted")])
    take(database, source)
    assert reap(database, Patience()) == Reaped(stalled=2)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=3))
    assert reap(database, Patience()) == Reaped()  # old clients tell of nothing between a start and an end
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=8))
    assert reap(database, Patience()) == Reaped(lost=2)
    assert_it_is_sound(database)


def test_dirt_is_told_and_loses_nothing(database: Database, source: Source[Document]) -> None:
    original.fill(source, jobs=1, instances=3)
    original.soil(source)
    told = take(database, source, dry_run=True)
    assert all(database.collection(name).count_documents({}) == 0 for name in ("job", "job_instance", "data_file"))
    report = take(database, source)
    assert report.taken == {"new jobs": 7, "new instances": 16, "new files": 6, "heartbeats": 1} == told.taken
    assert {reason: found.number for reason, found in report.skipped.items()} == {
        "an instance without a job": 2,
        "an instance without a number": 1,
        "a second instance of the same number: the one that came farthest is taken": 2,
        "a file that is entered twice": 1,
        "a file without a name or a site": 1,
    }
    doubtful = {reason.split(":")[0]: found.number for reason, found in report.doubtful.items()}
    assert doubtful == {
        "a parent that is not there": 1,
        "a parent that would close a circle": 2,
        "a title that cannot be the name of a folder": 1,
        "a type that is not among [JobDB] task_types": 1,
        "a job whose XML cannot be read": 2,
        "a slug that is taken": 1,
        "a title that is taken": 1,
        "a status that is not known": 1,
        "overrides that cannot be read": 2,
        "a time that there was not, when clocks were set forward": 1,
        "a time that came twice, when clocks were set back": 1,
        "a time that cannot be read": 1,
        "another site than its job's": 1,
        "a job that lists another number of instances than there are": 4,
        "a file's status that is not known": 1,
    }
    assert "a number of an instance that occurs more than once" in told.doubtful
    titles = {job["_id"]: job["title"] for job in database.jobs.find()}
    assert sorted(titles.values())[:4] == ["bad xml", "by reference", "dirty_.._job", "job0"]
    stored = {(titles[one["job"]], one["instanceId"]): one for one in database.instances.find()}
    dirty = {number: one["status"] for (title, number), one in stored.items() if title == "dirty_.._job"}
    assert dirty == {
        1: "Done", 2: "Unknown", 3: "Running", 4: "Failed", 5: "Done", 6: "Done", 7: "Done", 8: "Failed", 9: "New"
    }  # fmt: skip
    assert stored["dirty_.._job", 4]["minor_status"] == "UnreadableOverrides"
    assert stored["dirty_.._job", 8]["batchId"] == "77" and len(stored["dirty_.._job", 8]["log"]) == 64 * 1024
    assert stored["bad xml", 1]["minor_status"] == "ArchivedJob" and stored["bad xml", 2]["status"] == "Running"
    bad = database.jobs.find_one({"title": "bad xml"}) or {}
    assert bad["archived"] and "&lt;Jobs&gt;&lt;Job&gt;" in bad["body"]
    by_title = {title: job for job, title in titles.items()}
    assert claim(database) == {(by_title["by reference"], 1)}  # no definition hinders it
    assert_it_is_sound(database)


def test_times_on_the_wall() -> None:
    told: list[str] = []
    times = legacy.Times(ROME, lambda reason, _: told.append(reason))
    read = {
        (2016, 1, 1, 12, 0): (2016, 1, 1, 11, 0),
        (2016, 7, 1, 12, 0): (2016, 7, 1, 10, 0),
        (2016, 3, 27, 1, 59): (2016, 3, 27, 0, 59),
        (2016, 3, 27, 3, 0): (2016, 3, 27, 1, 0),
        (2016, 10, 30, 1, 59): (2016, 10, 29, 23, 59),
        (2016, 10, 30, 3, 0): (2016, 10, 30, 2, 0),
    }
    for local, utc in read.items():
        assert times.aware(datetime(*local), "x") == datetime(*utc, tzinfo=UTC)
    assert times.aware("Thu Sep  1 12:00:00 2016", "x") == datetime(2016, 9, 1, 10, tzinfo=UTC)
    assert times.aware(None, "x") is None and told == []
    assert times.aware(datetime(2016, 10, 30, 2, 30), "x") == datetime(2016, 10, 30, 0, 30, tzinfo=UTC)
    assert times.aware(datetime(2016, 3, 27, 2, 30), "x") == datetime(2016, 3, 27, 1, 30, tzinfo=UTC)
    assert times.aware("soon", "x") is None and times.aware(7, "x") is None
    assert Counter(reason.split(",")[0] for reason in told) == {
        "a time that came twice": 1, "a time that there was not": 1, "a time that cannot be read": 2
    }  # fmt: skip


def change(source: Source[Document], job: ObjectId, number: int, status: str, days: int = 1) -> None:
    time = original.BEGIN + timedelta(days=days)
    source["job_instance"].update_one(
        {"job": job, "instanceId": number}, {"$set": {"status": status, "last_update": time}}
    )


def test_a_second_time_takes_what_is_new_and_leaves_what_was_done_here(
    database: Database, source: Source[Document]
) -> None:
    parent = original.make_job(source, "parent")
    child = original.make_job(source, "child", (parent,))
    source["job_instance"].insert_many(
        [original.instance(parent, number, "New" if number < 4 else "Running") for number in range(1, 8)]
        + [original.instance(child, number, "New") for number in range(1, 9)]
    )
    source["data_file"].insert_many(
        {"filename": name, "site": "TEST", "status": "New", "filetype": "root"} for name in ("/there", "/here")
    )
    take(database, source)
    before = {one["_id"]: one for one in database.instances.find()}
    again = take(database, source)
    assert again.taken == {"instances that are here already": 15, "files that are here already": 2}
    assert {one["_id"]: one for one in database.instances.find()} == before
    # Here, one is claimed and another one reported as Done; there, some end, and there is more.
    asked = claims.ClaimRequest("TEST", "agent", "r1", 1, timedelta(minutes=10))
    assert [one["instanceId"] for one in claims.claim(database, asked)] == [1]
    apply_report(database, StatusReport(parent, 4, Report(MajorStatus.DONE), {"batchId": "1004"}))
    database.files.update_one({"filename": "/here"}, {"$set": {"status": "Copied", "last_update": datetime.now(UTC)}})
    here = {one["instanceId"]: one for one in database.instances.find({"job": parent, "instanceId": {"$in": [1, 4]}})}
    for number, status in ((1, "Done"), (4, "Failed"), (5, "Done"), (6, "Failed")):
        change(source, parent, number, status)
    source["job_instance"].insert_one(original.instance(parent, 8, "Done"))
    source["data_file"].update_many({}, {"$set": {"status": "Orphaned"}})
    original.make_job(source, "third")
    third = take(database, source)
    assert third.taken == {
        "new jobs": 1, "new instances": 1, "changed instances": 2, "instances that are here already": 11,
        "instances that were worked on here, and stay": 2, "changed files": 1, "files that are here already": 1,
    }  # fmt: skip
    assert third.doubtful["changed there and here since: left as it is here"].number == 2
    now = {one["instanceId"]: one for one in database.instances.find({"job": parent})}
    assert {number: one["status"] for number, one in now.items()} == {
        1: "New", 2: "New", 3: "New", 4: "Done", 5: "Done", 6: "Failed", 7: "Running", 8: "Done"
    }  # fmt: skip
    assert {number: now[number] for number in here} == here
    assert {one["filename"]: one["status"] for one in database.files.find()} == {
        "/there": "Orphaned",
        "/here": "Copied",
    }
    assert (database.jobs.find_one({"_id": parent}) or {})["allotted"] == 8
    assert claim(database, "r2") == {(parent, 2), (parent, 3), (child, 4), (child, 5), (child, 8)}
    # One that was Done starts anew there: its child waits again here, unless somebody has it.
    change(source, parent, 8, "New", days=2)
    take(database, source)
    roll_back(database, child, [4, 5, 8])
    assert claim(database, "r3") == {(parent, 8), (child, 4), (child, 5)}
    assert_it_is_sound(database)


def test_work_here_at_the_same_moment_wins(
    database: Database, source: Source[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = original.make_job(source, "sim")
    source["job_instance"].insert_many([original.instance(job, number, "Running") for number in (1, 2)])
    take(database, source)
    change(source, job, 1, "Failed")
    change(source, job, 2, "Failed")
    write: Callable[..., None] = takeover._Takeover._write
    done: list[int] = []

    def report_first(*given: Any) -> None:
        if not done:
            done.append(1)
            apply_report(database, StatusReport(job, 1, Report(MajorStatus.DONE), {"batchId": "1001"}))
        write(*given)

    monkeypatch.setattr(takeover._Takeover, "_write", report_first)
    assert take(database, source).taken["changed instances"] == 1
    assert {one["instanceId"]: one["status"] for one in database.instances.find()} == {1: "Done", 2: "Failed"}
    assert_it_is_sound(database)


def test_a_takeover_that_is_killed_is_repeated(
    database: Database, source: Source[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "CHUNK", 50)
    original.fill(source, jobs=2, instances=200)
    write: Callable[..., None] = takeover._Takeover._write
    chunks = iter(range(100))

    def die(*given: Any) -> None:
        if next(chunks) == 5:
            raise KeyboardInterrupt
        write(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(takeover._Takeover, "_write", die)
        take(database, source)
    assert database.instances.count_documents({}) == 250
    assert_it_is_sound(database)
    take(database, source)
    assert database.instances.count_documents({}) == 400
    assert_it_is_sound(database)
    waiting = {"status": "New", "waiting_for.0": {"$exists": True}}
    child = database.jobs.find_one({"dependencies.0": {"$exists": True}}) or {}
    (parent,) = child["dependencies"]
    done = {one["instanceId"] for one in database.instances.find({"job": parent, "status": "Done"})}
    assert not done & {one["instanceId"] for one in database.instances.find(waiting)}
    statuses = Counter(one["status"] for one in source["job_instance"].find())
    assert Counter(one["status"] for one in database.instances.find()) == statuses
    assert sum(statuses[str(status)] for status in FINAL) > 200


def test_a_better_duplicate_in_a_later_chunk(
    database: Database, source: Source[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "CHUNK", 1)
    job = original.make_job(source, "sim")
    found = [original.instance(job, 1, status) for status in ("New", "Done", "Running")]
    source["job_instance"].insert_many(found)
    for _ in range(2):
        report = take(database, source)
        assert [one["_id"] for one in database.instances.find()] == [found[1]["_id"]]
        assert sum(told.number for told in report.skipped.values()) == 2
        assert_it_is_sound(database)


def test_what_is_no_database_of_the_original_is_refused(database: Database, source: Source[Document]) -> None:
    with pytest.raises(InvalidInput, match="has no collection job"):
        take(database, source)
    for wrong in ("mongodb://127.0.0.1:1", "http://somewhere", "mongodb://127.0.0.1:x/old"):
        with pytest.raises(InvalidInput, match="mongodb://host:port/database"), takeover.opened(wrong):
            pass
    original.fill(source, jobs=1, instances=1)
    take(database, source)
    with pytest.raises(InvalidInput, match="of this program"):
        take(database, database.client.get_database(database.name))
    ours = Database("", source.name, database.client)
    for refused in (ours.prepare, lambda: migrations.migrate(ours)):
        with pytest.raises(ConfigurationError, match="data of the original"):
            refused()


def test_a_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(takeover.SOURCE_OPTIONS, "serverSelectionTimeoutMS", 100)
    silent = takeover.opened("mongodb://somebody:hidden@127.0.0.1:1/old")
    with pytest.raises(Unavailable, match="the original's MongoDB: ") as refused, silent:
        pass
    assert "\n" not in str(refused.value) and "hidden" not in str(refused.value)


def test_by_command(database: Database, source: Source[Document], mongod: EmbeddedMongod, tmp_path: Path) -> None:
    original.fill(source, jobs=1, instances=10)
    settings = tmp_path / "server.cfg"
    settings.write_text(
        CONFIGURATION.format(url="http://127.0.0.1:1", auth="required", uri=mongod.uri, name=database.name)
    )
    uri = mongod.uri.replace("/?", f"/{source.name}?")

    def run(*words: str, zone: str = "Europe/Rome") -> Result:
        command = ["import-legacy", "--timezone", zone, "--config", str(settings), *words]
        return CliRunner().invoke(dampe_server, command, env={"DAMPE_LEGACY_URI": uri})

    assert run(zone="Europe/Roma").exit_code == InvalidInput.exit_code
    dry = run("--from", uri, "--dry-run", "--json")
    assert dry.exit_code == 0 and json.loads(dry.output)["taken"]["new instances"] == 10
    assert database.instances.count_documents({}) == 0
    taken = run()
    assert taken.exit_code == 0 and "10 new instances\n" in taken.output
    source["job_instance"].insert_one(original.instance(ObjectId(), 1))
    left = run()
    assert left.exit_code == 1 and "left out: 1 x an instance without a job\n    " in left.output
    assert credentials.all_tokens(database) == []


def test_a_long_title_is_cut_to_the_bytes_that_a_folder_may_have(
    database: Database, source: Source[Document]
) -> None:
    job = original.make_job(source, "é" * 200)
    source["job_instance"].insert_one(original.instance(job, 1, "New"))
    assert TITLE_CHANGED in take(database, source).doubtful
    assert [job["title"] for job in database.jobs.find()] == ["é" * 127]
