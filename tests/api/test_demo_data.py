"""What scripts/demo-data makes is what the program would have stored."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.read_concern import ReadConcern

from DmpWorkflow.core.database import activity, clock, counts, site_health, snapshots
from DmpWorkflow.core.database.checking import check
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.site_health import Light
from DmpWorkflow.core.job_xml import parse_jobs
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.utils.errors import Conflict
from scripts.demo_data import Wanted, fill
from scripts.demo_plan import SITES, SPAN

INSTANCES, JOBS = 3000, 60
NAMES = [site.name for site in SITES]
# What no history is made of.
MADE_EMPTY = {"claim", "credential", "user", "login", "maintenance", "failed_tries", "creation_request"}


@pytest.fixture(scope="module")
def now() -> datetime:
    """The afternoon of the last working day: the people of the demonstration rest at night and at weekends."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    weekend = max(0, yesterday.weekday() - 4)
    return (yesterday - timedelta(days=weekend)).replace(hour=15, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def filled(mongod: EmbeddedMongod, now: datetime) -> Iterator[Database]:
    fill(Wanted(mongod.uri, "demo", JOBS, INSTANCES), now, processes=2)
    opened = Database(mongod.uri, "demo")
    yield opened
    opened.client.drop_database("demo")
    opened.close()


def test_all_that_it_stores_loads_and_validates_as_documents(filled: Database) -> None:
    for document in DOCUMENTS:
        collection = filled.jobs.database[document._meta["collection"]]
        stored = list(collection.with_options(read_concern=ReadConcern("local")).find())
        assert bool(stored) != (collection.name in MADE_EMPTY), document
        for found in stored:
            document._from_son(found).validate()  # refuses fields that are not declared


def test_all_that_must_hold_does(filled: Database) -> None:
    assert check(filled).broken == {}


def test_there_is_as_much_as_was_asked_for(filled: Database, now: datetime) -> None:
    assert filled.jobs.count_documents({}) == JOBS
    assert filled.instances.count_documents({}) == INSTANCES == sum(job["allotted"] for job in filled.jobs.find())
    assert filled.files.count_documents({}) == 20_000
    assert filled.instances.count_documents({"last_update": {"$gt": now}}) == 0
    assert filled.instances.count_documents({"created_at": {"$lt": now - SPAN - activity.HOUR}}) == 0
    for job in filled.jobs.find():
        (definition,) = parse_jobs(job["body"].encode())[0]
        assert (definition.name, definition.type, definition.site) == (
            job["title"], job["type"], job["execution_site"],
        )  # fmt: skip


def test_the_counters_equal_a_fresh_count(filled: Database) -> None:
    groups = filled.instances.aggregate([{"$group": {"_id": ["$job", "$status"], "number": {"$sum": 1}}}])
    fresh = {(group["_id"][0], group["_id"][1]): group["number"] for group in groups}
    kept = counts.of_jobs(filled, [job["_id"] for job in filled.jobs.find({}, {"_id": 1})])
    assert fresh == {(job, str(status)): n for job, found in kept.items() for status, n in found.items() if n}
    assert {status for _, status in fresh} >= {"New", "Submitted", "Running", "Done", "Failed", "Terminated"}


def test_statistics_tell_of_all_attempts_and_of_nothing_else(filled: Database, now: datetime) -> None:
    ends: Counter[str] = Counter()
    reasons: Counter[tuple[str, str, str]] = Counter()
    hosts: Counter[str] = Counter()
    starts = 0
    for instance in filled.instances.find():
        for attempt in [*instance.get("attempts", []), instance]:
            starts += "started_at" in attempt
            if attempt["status"] in FINAL:
                ends[attempt["status"]] += 1
                hosts[attempt["hostname"]] += 1
                if attempt["status"] != MajorStatus.DONE:
                    reasons[instance["site"], attempt["status"], attempt["minor_status"]] += 1
    begin = now - SPAN - activity.HOUR
    for scopes in (
        [activity.of_site(name) for name in NAMES],
        [activity.of_job(job["_id"]) for job in filled.jobs.find({}, {"_id": 1})],
    ):
        total: Counter[str] = Counter()
        for hour in activity.hours(filled, scopes, begin):
            total.update({str(word): hour[word] for word in activity.COUNTED})
        assert total == {**ends, "Running": starts}
    told = activity.failure_reasons(filled, NAMES, begin, 1000)
    assert {(row["site"], row["status"], row["minor_status"]): row["number"] for row in told} == reasons
    ranked = [row for name in NAMES for row in activity.hosts(filled, name, begin, 1000)]
    assert Counter({row["hostname"]: row["done"] + row["failed"] + row["terminated"] for row in ranked}) == hosts
    distributed = filled.distributions.find()
    assert sum(sum(found["wall"].values()) for found in distributed) == ends.total()


def test_the_last_snapshot_is_what_the_histories_say(filled: Database, now: datetime) -> None:
    taken = snapshots.since(filled, now - SPAN, set(NAMES), hourly=False)
    assert len(taken) >= 31 * 24 * 4 and taken[-1]["time"] == snapshots.quarter(now)
    assert all(number >= 0 for one in taken for number in one["counts"].values())
    at_that_time: Counter[str] = Counter()
    for instance in filled.instances.find({"created_at": {"$lte": taken[-1]["time"]}}):
        changes = [("New", instance["created_at"])]
        for attempt in [*instance.get("attempts", []), instance]:
            changes += [(entry["status"], entry["update"]) for entry in attempt.get("status_history", [])]
        at_that_time[[status for status, time in changes if time <= taken[-1]["time"]][-1]] += 1
    assert at_that_time == Counter({status: number for status, number in taken[-1]["counts"].items() if number})


def test_children_wait_for_their_parents(filled: Database) -> None:
    parents = {job["_id"]: job["dependencies"] for job in filled.jobs.find()}
    done = {
        (found["job"], found["instanceId"]): found["last_update"]
        for found in filled.instances.find({"status": "Done"})
    }
    waiting = 0
    for instance in filled.instances.find({"job": {"$in": [job for job, found in parents.items() if found]}}):
        open_parents = [p for p in parents[instance["job"]] if (p, instance["instanceId"]) not in done]
        assert instance["waiting_for"] == open_parents
        waiting += bool(open_parents)
        if open_parents:
            assert (instance["status"], instance["claimable"]) == ("New", False)
        elif "started_at" in instance:
            (parent,) = parents[instance["job"]]
            assert instance["started_at"] > done[parent, instance["instanceId"]]
    assert waiting


def test_the_sites_have_the_troubles_that_people_look_for(
    filled: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)
    health = {one.site: one for one in site_health.of_sites(filled, NAMES)}
    assert health["PMO"].light is Light.RED and "silent for" in health["PMO"].reason
    assert health["GENEVA"].light is Light.RED and "squeue: no answer" in health["GENEVA"].reason
    assert filled.beats.find_one({"site": "GENEVA", "problem": {"$regex": "^squeue"}})
    assert health["PERUGIA"].light is Light.GREEN
    (worst, *_) = activity.hosts(filled, "BARI", now - timedelta(days=1), 10)
    assert worst["hostname"].startswith("wn013") and worst["rate"] > 0.5
    one_of_all = {"status": "Failed", "log": {"$exists": True}, "last_line": {"$exists": True}}
    assert filled.instances.find_one(one_of_all)
    assert filled.instances.find_one({"attempts.0": {"$exists": True}, "status": "Done"})
    assert filled.instances.find_one({"status": "Running", "cpu.10": {"$exists": True}})


def test_the_same_seed_gives_the_same_and_another_one_something_else(mongod: EmbeddedMongod, now: datetime) -> None:
    opened = [Database(mongod.uri, name) for name in ("demo_a", "demo_b", "demo_c")]
    try:
        for database, seed in zip(opened, (7, 7, 8), strict=True):
            fill(Wanted(mongod.uri, database.jobs.database.name, 12, 300, seed), now, processes=1)
        first, same, other = (list(database.instances.find(sort=[("_id", 1)])) for database in opened)
        assert first == same != other
    finally:
        for database in opened:
            database.client.drop_database(database.jobs.database.name)
            database.close()


def test_it_leaves_a_filled_database_alone_unless_it_may_add(mongod: EmbeddedMongod, now: datetime) -> None:
    database = Database(mongod.uri, "demo_twice")
    wanted = Wanted(mongod.uri, "demo_twice", 8, 200)
    try:
        fill(wanted, now, processes=1)
        with pytest.raises(Conflict, match="--add"):
            fill(wanted, now, processes=1)
        assert database.instances.count_documents({}) == 200
        fill(Wanted(mongod.uri, "demo_twice", 8, 200, add=True), now, processes=1)
        assert (database.jobs.count_documents({}), database.instances.count_documents({})) == (16, 400)
        last = snapshots.since(database, now - activity.HOUR, set(NAMES), hourly=False)[-1]
        assert sum(last["counts"].values()) == 400
    finally:
        database.client.drop_database("demo_twice")
        database.close()
