"""Backups: of one moment while work goes on, whole or refused; and what a restore means for attempts since then."""

import gzip
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from click.testing import CliRunner, Result

from DmpWorkflow.core.database import (
    archive,
    attempt_numbers,
    claims,
    counts,
    creation,
    credentials,
    jobs,
    maintenance,
    schema,
)
from DmpWorkflow.core.database import restore as restoring
from DmpWorkflow.core.database.archive import DamagedBackup
from DmpWorkflow.core.database.backup import MomentGone, back_up
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.restore import restore
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Outcome, Report, StaleAttempt
from DmpWorkflow.frontend.cli.main import dampe_server
from DmpWorkflow.utils.errors import ConfigurationError, Conflict, DmpWorkflowError, NotFound
from tests.documented import block
from tests.served import CONFIGURATION

WAIT = 60
names = itertools.count()


@pytest.fixture
def other(mongod: EmbeddedMongod) -> Iterator[Database]:
    """Another database, to restore into; nothing is in it."""
    opened = Database(mongod.uri, f"restored_{next(names)}")
    yield opened
    opened.client.drop_database(opened.name)
    opened.close()


def make_job(database: Database, title: str, number: int, parents: tuple[ObjectId, ...] = ()) -> ObjectId:
    new = jobs.NewJob(title=title, type="User", site="local", body="<Jobs/>", dependencies=parents)
    job: ObjectId = jobs.submit(database, new)["_id"]
    creation.create_instances(database, job, number)
    return job


def claim(database: Database, request: str, limit: int = 1000) -> dict[tuple[ObjectId, int], int]:
    """Return the attempts that were handed out, by instance."""
    asked = claims.ClaimRequest("local", "agent", request, limit, timedelta(minutes=10))
    return {(got["job"], got["instanceId"]): got["attempt"] for got in claims.claim(database, asked)}


def report(
    database: Database, job: ObjectId, number: int, attempt: int, status: MajorStatus, sequence: int
) -> Outcome:
    return apply_report(database, StatusReport(job, number, Report(status, attempt, sequence, f"runner{attempt}")))


def everything(database: Database) -> dict[str, dict[Any, Any]]:
    """Return all that is stored, less the settings."""
    source = database.client.get_database(database.name)
    found = {name: source[name].find() for name in source.list_collection_names() if name != "setting"}
    return {name: {document["_id"]: document for document in documents} for name, documents in found.items()}


class Work:
    """Submissions, claims and reports that go on in threads; ``more`` waits until some have been done."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.changed = threading.Condition()
        self.done = 0
        self.stopping = threading.Event()
        self.failed: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]

    def __enter__(self) -> "Work":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(WAIT)
        assert not self.failed

    def _run(self, thread: int) -> None:
        try:
            for number in itertools.count():
                if self.stopping.is_set():
                    return
                self._step(f"{thread}-{number}")
                with self.changed:
                    self.done += 1
                    self.changed.notify_all()
        except BaseException as error:
            self.failed.append(error)
            raise

    def _step(self, name: str) -> None:
        make_job(self.database, f"job {name}", 4)
        for (job, number), attempt in claim(self.database, name, 3).items():
            report(self.database, job, number, attempt, MajorStatus.RUNNING, 1)
            if number % 2:
                report(self.database, job, number, attempt, MajorStatus.DONE, 2)

    def more(self, steps: int = 3) -> None:
        with self.changed:
            wanted = self.done + steps
            assert self.changed.wait_for(lambda: self.done >= wanted or self.failed, WAIT)


def test_a_backup_of_a_live_system_is_of_one_moment(
    database: Database, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "first", 20)
    write: Callable[..., None] = archive.Writer.add
    with Work(database) as work:

        def add_later(writer: archive.Writer, collection: str, documents: bytes) -> None:
            work.more()  # between any two collections the system goes on
            write(writer, collection, documents)

        work.more()
        monkeypatch.setattr(archive.Writer, "add", add_later)
        documents = back_up(database, tmp_path / "backup")
        work.more()
    assert archive.verify(tmp_path / "backup").differing == 0
    done = restore(other, tmp_path / "backup")
    assert done.counts == f"the counts of {documents['job']} jobs are exact"
    assert other.jobs.count_documents({}) == documents["job"] < database.jobs.count_documents({})
    stored: Counter[ObjectId] = Counter(found["job"] for found in other.instances.find({}, {"job": 1}))
    for job in other.jobs.find():  # numbers that are given away are stored, or noted as to be stored
        missing = sum(note["last"] - note["next"] + 1 for note in job["creations"])
        assert stored[job["_id"]] == job["allotted"] - missing
    requests = {found["_id"] for found in other.claims.find({}, {"_id": 1})}
    assert {
        found["claim"]["request"] for found in other.instances.find({"claim.request": {"$exists": True}})
    } <= requests
    assert maintenance.compare_counts(database).endswith("are exact")


def test_a_restored_database_is_what_was_backed_up_and_works(
    database: Database, other: Database, tmp_path: Path
) -> None:
    parent = make_job(database, "parent", 3)
    child = make_job(database, "child", 3, (parent,))
    claim(database, "r1", 2)
    report(database, parent, 1, 1, MajorStatus.DONE, 1)
    token, _ = credentials.create(database, "site", "site", "local")
    secret = credentials.secret(database)
    sessions = credentials.session_secret(database)
    database.collection("of_somebody_else").insert_one({"_id": 1, "kept": True})
    documents = back_up(database, tmp_path / "backup")
    before = everything(database)
    restore(other, tmp_path / "backup")
    assert everything(other) == before and sum(map(len, before.values())) > 0
    assert {name: len(found) for name, found in before.items() if found} == {
        name: number for name, number in documents.items() if name != "setting"
    }
    other.prepare()
    for document in DOCUMENTS:
        name = document._meta["collection"]
        assert other.collection(name).index_information() == database.collection(name).index_information()
    found = credentials.find(other, token, credentials.secret(other))
    assert found is not None and found.site == "local"
    assert credentials.secret(other) == secret and credentials.session_secret(other) != sessions
    assert set(claim(other, "r2")) == {(parent, 3), (child, 1)}
    assert report(other, parent, 2, 1, MajorStatus.DONE, 1) is Outcome.APPLY  # it ran all the time
    assert set(claim(other, "r3")) == {(child, 2)}


def test_no_attempt_since_the_backup_is_mistaken_for_a_new_one(
    database: Database, other: Database, tmp_path: Path
) -> None:
    job = make_job(database, "sim", 3)
    claim(database, "r1", 2)
    report(database, job, 1, 1, MajorStatus.RUNNING, 1)
    back_up(database, tmp_path / "backup")
    # What goes on after the backup, and is forgotten: second attempts of 1 and 2, a first one of 3, and 4 is new.
    roll_back(database, job, [1, 2])
    creation.create_instances(database, job, 1)
    forgotten = claim(database, "r2")
    assert forgotten == {(job, 1): 2, (job, 2): 2, (job, 3): 1, (job, 4): 1}
    restore(other, tmp_path / "backup")
    assert report(other, job, 1, 1, MajorStatus.RUNNING, 2) is Outcome.APPLY  # it is the current attempt still
    for (_, number), attempt in forgotten.items():
        refused = StaleAttempt if number < 4 else NotFound
        with pytest.raises(refused):
            report(other, job, number, attempt, MajorStatus.RUNNING, 1)
    roll_back(other, job, [1, 2])
    creation.create_instances(other, job, 1)
    first = claim(other, "r2")  # also by the same words of the same agent
    assert set(first) == set(forgotten)
    for (_, number), attempt in forgotten.items():
        with pytest.raises(StaleAttempt):
            report(other, job, number, attempt, MajorStatus.DONE, 9)
    # The same backup once more, a moment later: what was handed out since the first restore is forgotten, too.
    floor = attempt_numbers.floor(other)
    restore(other, tmp_path / "backup", other.name)
    assert attempt_numbers.floor(other) >= floor
    with pytest.raises(StaleAttempt):
        report(other, job, 3, first[job, 3], MajorStatus.RUNNING, 1)


def test_attempts_of_old_clients_also_go_on_above_the_floor(database: Database) -> None:
    job = make_job(database, "sim", 2)
    attempt_numbers.raise_floor(database, 500)
    apply_report(database, StatusReport(job, 1, Report(MajorStatus.SUBMITTED), {"batchId": "7"}))
    assert claim(database, "r1") == {(job, 2): 501}
    stored = database.instances.find_one({"instanceId": 1}) or {}
    assert stored["attempt"] == 501
    roll_back(database, job, [1, 2])
    assert claim(database, "r2") == {(job, 1): 502, (job, 2): 502}


def damaged(whole: bytes, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    head = len(archive.MAGIC)
    altered = gzip.decompress(whole[head:]).replace(b"AwaitingBatch", b"awaitingBatch")
    for name, content in {
        "empty": b"", "text": b"no backup at all\n", "head": whole[:60], "cut": whole[: len(whole) // 2],
        "almost": whole[:-1], "flipped": bytes(flipped), "longer": whole + b"x", "twice": whole + whole[head:],
        "altered": whole[:head] + gzip.compress(altered),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        yield name, tmp_path / name


def test_a_damaged_file_is_refused_and_leaves_nothing(database: Database, other: Database, tmp_path: Path) -> None:
    make_job(database, "sim", 50)
    back_up(database, tmp_path / "backup")
    for name, path in damaged((tmp_path / "backup").read_bytes(), tmp_path):
        with pytest.raises(DamagedBackup, match=f"{name} is no whole backup: .+") as refused:
            restore(other, path)
        assert "\n" not in str(refused.value)
        assert other.client.get_database(other.name).list_collection_names() == []


def test_an_end_that_tells_of_more_than_there_is_is_refused(
    database: Database, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "sim", 50)
    write: Callable[..., None] = archive.Writer._write

    def lose(writer: archive.Writer, record: dict[str, Any]) -> None:
        if record.get("collection") != "job_instance":
            write(writer, record)

    monkeypatch.setattr(archive.Writer, "_write", lose)
    back_up(database, tmp_path / "backup")
    with pytest.raises(DamagedBackup, match="its number of documents is wrong"):
        restore(other, tmp_path / "backup")


def test_nothing_is_overwritten_unless_told(database: Database, other: Database, tmp_path: Path) -> None:
    make_job(database, "old", 2)
    back_up(database, tmp_path / "backup")
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    make_job(database, "new", 2)
    with pytest.raises(Conflict, match="exists"):
        back_up(database, tmp_path / "backup")
    assert back_up(database, tmp_path / "backup", replace=True)["job"] == 2
    make_job(other, "precious", 2)
    for wrong in (None, "", "another"):
        with pytest.raises(Conflict, match=r"not empty|not the name"):
            restore(other, tmp_path / "backup", wrong)
    assert [job["title"] for job in other.jobs.find()] == ["precious"]
    restore(other, tmp_path / "backup", other.name)
    assert sorted(job["title"] for job in other.jobs.find()) == ["new", "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def write_settings(opened: Database, mongod: EmbeddedMongod, folder: Path) -> Path:
    settings = folder / f"{opened.name}.cfg"
    settings.write_text(
        CONFIGURATION.format(url="http://127.0.0.1:1", auth="required", uri=mongod.uri, name=opened.name)
    )
    return settings


def test_half_a_restore_is_refused_until_it_is_repeated(
    database: Database, other: Database, mongod: EmbeddedMongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "sim", 50)
    back_up(database, tmp_path / "backup")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(restoring, "_compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        restore(other, tmp_path / "backup")
    assert other.instances.count_documents({}) == 50
    for refused in (other.prepare, lambda: back_up(other, tmp_path / "half")):
        with pytest.raises(ConfigurationError, match=r"half restored .* again"):
            refused()
    started = CliRunner().invoke(dampe_server, ["run", "--config", str(write_settings(other, mongod, tmp_path))])
    assert started.exit_code == ConfigurationError.exit_code and "half restored" in started.output
    restore(other, tmp_path / "backup")
    other.prepare()
    assert len(claim(other, "r1")) == 50


def test_a_restore_that_somebody_disturbs_does_not_pass(
    database: Database, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "sim", 5)
    back_up(database, tmp_path / "backup")
    fill: Callable[..., None] = restoring._fill

    def fill_and_disturb(*given: Any) -> None:
        fill(*given)
        other.instances.delete_one({})

    monkeypatch.setattr(restoring, "_fill", fill_and_disturb)
    with pytest.raises(DmpWorkflowError, match="5 documents of job_instance were restored, and 4 are there"):
        restore(other, tmp_path / "backup")
    with pytest.raises(ConfigurationError):
        other.prepare()


def test_wrong_counters_are_told(database: Database, other: Database, tmp_path: Path) -> None:
    job = make_job(database, "sim", 5)
    database.transaction(lambda session: counts.change(database, job, {MajorStatus.DONE: 1}, session))
    back_up(database, tmp_path / "backup")
    assert archive.verify(tmp_path / "backup").differing == 1
    assert "the counts of 1 of 1 job are wrong" in restore(other, tmp_path / "backup").counts


def test_a_backup_that_takes_too_long_says_what_to_do(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "sim", 500)
    window = {"setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0}
    kept = database.client.admin.command(window)["was"]
    write: Callable[..., None] = archive.Writer.add

    def add_late(writer: archive.Writer, collection: str, documents: bytes) -> None:
        for _ in range(10):  # with each the present moves on, and no longer reaches back
            database.settings.update_one({"_id": "tick"}, {"$inc": {"value": 1}}, upsert=True)
        write(writer, collection, documents)

    monkeypatch.setattr(archive.Writer, "add", add_late)
    try:
        with pytest.raises(MomentGone, match="minSnapshotHistoryWindowInSeconds"):
            back_up(database, tmp_path / "backup")
    finally:
        database.client.admin.command(window | {"minSnapshotHistoryWindowInSeconds": kept})
    assert list(tmp_path.iterdir()) == []


def test_a_newer_backup_is_refused(
    database: Database, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(database, "sim", 1)
    schema.set_version(database, schema.VERSION + 1)
    back_up(database, tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="upgrade the program"):
        restore(other, tmp_path / "backup")
    assert other.jobs.count_documents({}) == 0


def test_by_command(database: Database, other: Database, mongod: EmbeddedMongod, tmp_path: Path) -> None:
    make_job(database, "sim", 3)

    def run(opened: Database, *words: str) -> Result:
        return CliRunner().invoke(dampe_server, [*words, "--config", str(write_settings(opened, mongod, tmp_path))])

    file = str(tmp_path / "backup")
    made = run(database, "backup", file)
    assert made.exit_code == 0 and "documents" in made.output
    assert run(database, "backup", file).exit_code == Conflict.exit_code
    assert "a whole backup of database" in run(database, "backup", file, "--verify").output
    assert run(database, "backup", str(tmp_path / "none" / "x")).output.endswith("No such file or directory\n")
    dry = run(other, "restore", file, "--dry-run", "--json")
    assert json.loads(dry.output)["documents"]["job_instance"] == 3
    assert other.jobs.count_documents({}) == 0
    assert "the counts of 1 job are exact" in run(other, "restore", file).output
    refused = run(other, "restore", file)
    assert refused.exit_code == Conflict.exit_code and refused.output.count("\n") == 1
    assert run(other, "restore", file, "--replace", other.name, "--json").exit_code == 0
    assert len(claim(other, "r1")) == 3


def test_the_script_for_cron(database: Database, mongod: EmbeddedMongod, tmp_path: Path) -> None:
    make_job(database, "sim", 3)
    settings, folder = write_settings(database, mongod, tmp_path), tmp_path / "backups"
    folder.mkdir()
    script = block("docs/server.md", "backup script")
    for theirs, ours in (("/var/backups/dampe", folder), ("/etc/dampe/server.cfg", settings)):
        assert theirs in script
        script = script.replace(theirs, str(ours))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    made = sorted(folder.iterdir())
    assert [path.name.split("-")[0] for path in made] == ["day", "month"]
    assert all(archive.verify(path).documents["job_instance"] == 3 for path in made)
