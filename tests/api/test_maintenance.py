"""Maintenance: every invariant that is broken in the database is named, and repaired where that is safe."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import (
    checking,
    clock,
    counts,
    data_catalogue,
    distributions,
    heartbeats,
    jobs,
    maintenance,
    monitoring,
    pausing,
    reaper,
)
from DmpWorkflow.core.database.checking import check
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.maintenance import Options
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.lifecycle import MajorStatus
from tests.api.test_commands import Shell
from tests.api.test_documents import fill
from tests.api.test_reporting import assert_counts_are_exact, claim_all, instance, make_job, report
from tests.served import Served

DRY = Options(dry_run=True)
LATER = clock.now() + timedelta(hours=1)


def change(number: int, *updates: dict[str, Any]) -> Callable[[Database, ObjectId], None]:
    """Return what changes an instance of the job "sim" behind everybody's back."""

    def apply(database: Database, job: ObjectId) -> None:
        for update in updates:
            assert database.instances.update_one({"job": job, "instanceId": number}, update).modified_count == 1

    return apply


def child(number: int, update: dict[str, Any]) -> Callable[[Database, ObjectId], None]:
    def apply(database: Database, job: ObjectId) -> None:
        found = database.jobs.find_one({"dependencies": job}) or {}
        change(number, update)(database, found["_id"])

    return apply


def of_job(update: dict[str, Any]) -> Callable[[Database, ObjectId], None]:
    def apply(database: Database, job: ObjectId) -> None:
        assert database.jobs.update_one({"_id": job}, update).modified_count == 1

    return apply


def spoil_counts(database: Database, job: ObjectId) -> None:
    database.counts.update_one({"_id": f"{job}:3"}, {"$inc": {"status.New": -3, "status.Done": 2}})


def lose_an_instance(database: Database, job: ObjectId) -> None:
    database.instances.delete_one({"job": job, "instanceId": 25})
    counts_of = {"_id": f"{job}:0"}
    database.counts.update_one(counts_of, {"$inc": {"status.New": -1}})


def twice(database: Database, job: ObjectId) -> None:
    database.instances.drop_index("job_1_instanceId_1")
    found = instance(database, job, 25)
    database.instances.insert_one(found | {"_id": ObjectId()})
    database.counts.update_one({"_id": f"{job}:0"}, {"$inc": {"status.New": 1}})


def drop_an_index(database: Database, job: ObjectId) -> None:
    database.instances.drop_index("claim_order")


def leave_an_orphan(database: Database, job: ObjectId) -> None:
    database.instances.insert_one(instance(database, job, 25) | {"_id": ObjectId(), "job": ObjectId()})


def forget_a_parent(database: Database, job: ObjectId) -> None:
    database.jobs.update_one({"dependencies": job}, {"$push": {"dependencies": ObjectId()}})


# In the job of test_documents.fill: 1 is Done, 2 Running, 4 to 10 claimed, the others New; instance 1 of its child is
# free, 2 to 5 wait.
BROKEN = {
    "status": change(25, {"$set": {"status": "Eaten"}}),
    "attempt": change(25, {"$set": {"attempt": -1}}),
    "claimable": change(1, {"$set": {"claimable": True}}),
    "claimable of one that waits": child(3, {"$set": {"claimable": True}}),
    "claimable of one that is claimed": change(5, {"$set": {"claimable": True}}),
    "forgotten": change(25, {"$set": {"claimable": False}}),
    "active": change(2, {"$unset": {"active": ""}}),
    "active of one that waits": change(25, {"$set": {"active": True}}),
    "reason": change(1, {"$set": {"status": "Failed", "minor_status": ""}}),
    "lease": change(25, {"$set": {"claim": {"agent": "agent"}, "claimable": False, "waits_until": LATER}}),
    "lease without an end": change(5, {"$unset": {"waits_until": ""}}),
    "contact": change(2, {"$unset": {"last_contact": ""}}),
    "wait": change(1, {"$set": {"waits_until": LATER}}),
    "paused": change(25, {"$set": {"paused": True, "claimable": False}}),
    "paused job": of_job({"$set": {"paused": "by anna"}}),
    "fields": change(25, {"$unset": {"created_at": ""}}),
    "counts": spoil_counts,
    "numbers": lose_an_instance,
    "unique": twice,
    "index": drop_an_index,
    "orphans": leave_an_orphan,
    "bounds": of_job({"$set": {"allotted": 29}}),
    "site": change(25, {"$set": {"site": "CNAF"}}),
    "creations": of_job({"$set": {"allotted": 32, "creations": [{"next": 31, "last": 32, "body": ""}]}}),
    "parents": forget_a_parent,
    "children": child(1, {"$set": {"claimable": False}, "$push": {"waiting_for": ObjectId("0" * 24)}}),
    "children that do not wait": child(4, {"$set": {"claimable": True, "waiting_for": []}}),
}
FOR_PEOPLE = {"status", "attempt", "numbers", "unique", "orphans", "bounds", "site", "parents", "fields"}


@pytest.fixture(scope="module")
def filled(mongod: EmbeddedMongod) -> Iterator[tuple[Database, ObjectId]]:
    """One database for many cases, which is quicker."""
    opened = Database(mongod.uri, "checked")
    opened.prepare()
    yield opened, fill_soundly(opened)
    opened.client.drop_database("checked")
    opened.close()


def fill_soundly(database: Database) -> ObjectId:
    job = fill(database)
    assert check(database).broken == {}
    return job


@pytest.fixture
def spoiled(filled: tuple[Database, ObjectId]) -> Iterator[tuple[Database, ObjectId]]:
    """The database, which is put right afterwards."""
    database, _ = filled
    kept = [(one, list(one.find())) for one in (database.jobs, database.instances, database.counts)]
    yield filled
    for collection, documents in kept:
        collection.delete_many({})
        collection.insert_many(documents)
    database.prepare()


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_hold_is_named_and_repaired_if_that_is_safe(
    spoiled: tuple[Database, ObjectId], case: str
) -> None:
    database, job = spoiled
    BROKEN[case](database, job)
    if case == "children":
        database.instances.update_many({"waiting_for": ObjectId("0" * 24)}, {"$set": {"waiting_for": [job]}})
    (name,) = [word for word in (*checking.INVARIANTS, *FOR_PEOPLE, *BROKEN) if case.split()[0] == word][:1]
    before = list(database.instances.find())
    checked = check(database)
    assert name in checked.broken, checked.broken
    assert list(database.instances.find()) == before
    with_repair = check(database, repair=True)
    if name in FOR_PEOPLE:
        assert name in with_repair.broken
        return
    assert name in with_repair.repaired
    assert check(database).holds, check(database).broken


def test_a_database_that_lives_is_said_to_hold(database: Database) -> None:
    job = fill_soundly(database)
    done = maintenance.run(database, "check", "anna")
    assert (done["ok"], done["result"]) == (True, "all that must hold does, in 2 jobs")
    spoil_counts(database, job)
    wrong = maintenance.run(database, "repair", "anna", DRY)
    assert not wrong["ok"] and re.search(r"BROKEN counts: .* sim \(\w+\) New \+3, .* Done -2", wrong["result"])
    assert maintenance.run(database, "compare-counts", "anna")["ok"] is False
    repaired = maintenance.run(database, "repair", "anna")
    assert repaired["ok"] and repaired["result"].startswith("repaired counts: ")
    assert_counts_are_exact(database, job)


def test_of_duplicates_the_one_that_came_farthest_stays(database: Database) -> None:
    job = make_job(database, 3)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.DONE, 1))
    database.instances.drop_index("job_1_instanceId_1")
    database.files.drop_index("site_1_filename_1")
    copy = instance(database, job, 2) | {"instanceId": 1}
    database.instances.insert_many([copy | {"_id": ObjectId()} for _ in range(2)])
    database.counts.update_one({"_id": f"{job}:0"}, {"$inc": {"status.New": 2}})
    now = clock.now()
    file = {"_cls": "DataFile", "site": "local", "filename": "/a", "filetype": "root", "created_at": now}
    old = file | {"status": "New", "last_update": now - timedelta(days=1)}
    database.files.insert_many([file | {"status": "Copied", "last_update": now}, old])
    tried = maintenance.run(database, "remove-duplicates", "anna", DRY)
    assert tried["result"] == "2 instances and 1 file would be removed" and tried["dry_run"]
    assert database.instances.count_documents({}) == 5 and database.files.count_documents({}) == 2
    done = maintenance.run(database, "remove-duplicates", "anna")
    assert done["result"] == "2 instances and 1 file removed"
    assert [found["status"] for found in database.instances.find(sort=[("instanceId", 1)])] == ["Done", "New", "New"]
    assert [found["status"] for found in database.files.find()] == ["Copied"]
    assert_counts_are_exact(database, job)
    database.prepare()
    again = maintenance.run(database, "remove-duplicates", "anna")
    assert again["result"] == "0 instances and 0 files removed"


def test_orphans_are_removed_and_nothing_else(database: Database) -> None:
    gone, stays = make_job(database, 3, "gone"), make_job(database, 2, "stays")
    for job in (gone, stays):
        distributions.note(database, [distributions.Used(job, 1.0, 1.0, 1.0)])
    database.jobs.delete_one({"_id": gone})
    words = f"3 instances, {counts.SLOTS} counters and statistics of 1 job"
    assert maintenance.run(database, "remove-orphans", "anna", DRY)["result"] == f"{words} would be removed"
    assert database.instances.count_documents({"job": gone}) == 3
    assert maintenance.run(database, "remove-orphans", "anna")["result"] == f"{words} removed"
    assert check(database).holds
    assert database.instances.count_documents({"job": stays}) == 2
    assert_counts_are_exact(database, stays)


def test_orphaned_files_go_when_asked_for(database: Database) -> None:
    data_catalogue.register(database, "local", ["/a", "/b"], "root")
    data_catalogue.set_status(database, "local", ["/a"], "Orphaned")
    assert maintenance.run(database, "remove-orphaned-files", "a", DRY)["result"] == "1 entry would be removed"
    assert maintenance.run(database, "remove-orphaned-files", "a")["result"] == "1 entry removed"
    assert [found["filename"] for found in database.files.find()] == ["/b"]


def test_the_monitor_names_what_is_stuck(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert monitoring.in_words(database) == "nothing waits"
    job = make_job(database, 3)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    heartbeats.agent_beat(database, {"agent": "agent", "hostname": "wn", "version": "3"}, "local", [])
    pausing.pause(database, job, "by anna")
    later = clock.now() + timedelta(hours=3)
    monkeypatch.setattr(clock, "now", lambda: later)
    reaper.reap(database, reaper.Patience())
    said = maintenance.run(database, "monitor", "anna")["result"].split("; ")
    slug = jobs.by_id(database, job)["slug"]
    assert said == [
        "1 Running, the last sign of life of one 3 hours ago, 1 stalled",
        "site local: its agent is silent for 3 hours, 2 New",
        "agent agent of local is silent for 3 hours",
        f"job sim ({slug}) is paused: by anna",
    ]


def test_a_server_reaps_by_itself_and_says_so(served: Served) -> None:
    job = make_job(served.database, 1)
    claim_all(served.database)
    apply_report(served.database, report(job, 1, MajorStatus.RUNNING, 1))
    long_ago = {"$set": {"last_contact": clock.now() - timedelta(days=2)}}
    served.database.instances.update_one({"job": job}, long_ago)
    served.process.terminate()
    served.process.wait(30)
    served.database.settings.delete_one({"_id": reaper.TURN})
    served.process = served.launch()
    deadline = time.monotonic() + 60
    while not (row := served.database.maintenance.find_one({"_id": "reap"})) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert row and row["by"].startswith("server on ")
    assert instance(served.database, job, 1)["stalled_since"]
    shown = Client(served.url, served.read_token).instance(jobs.by_id(served.database, job)["slug"], 1)
    assert shown["stalled_since"] and shown["status"] == "Running"


def test_maintenance_over_http_and_by_command(served: Served, tmp_path: Path) -> None:
    client = Client(served.url, served.admin_token)
    assert client.maintain("reap", dry_run=True)["dry_run"]
    job = make_job(served.database, 2, "spoilt")
    spoil_counts(served.database, job)
    shell = Shell(served, tmp_path)
    assert "BROKEN counts" in maintain(shell, served, "repair --dry-run", 1)
    assert "repaired counts" in maintain(shell, served, "repair", 0)
    assert client.maintain("check")["ok"]


def maintain(shell: Shell, served: Served, words: str, code: int) -> str:
    return shell.run("dampe-server", "maintain", *words.split(), code=code, config=served.settings_path)
