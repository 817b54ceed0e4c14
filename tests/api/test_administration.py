"""Maintenance, health and known words in the database; then the routes and commands over them."""

from typing import Any
from unittest.mock import patch

import pymongo.database
import pytest
import requests
from bson import ObjectId
from pymongo.errors import OperationFailure, PyMongoError

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import claims, clock, counts, creation, health, jobs, maintenance, words
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.submission import Words
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import AccessDenied, Conflict, InvalidInput, NotFound
from tests.served import Served


def make_job(database: Database, title: str, number: int, job_type: str = "User", site: str = "local") -> ObjectId:
    job: ObjectId = jobs.submit(database, jobs.NewJob(title, job_type, site, "<Jobs/>"))["_id"]
    creation.create_instances(database, job, number)
    return job


def spoil(database: Database, job: ObjectId) -> None:
    """Count two Done that there are not, and forget three New."""
    database.counts.update_one({"_id": f"{job}:3"}, {"$inc": {"status.New": -3, "status.Done": 2}})


def test_exact_counts_are_said_to_be_exact(database: Database) -> None:
    assert maintenance.compare_counts(database) == "the counts of 0 jobs are exact"
    make_job(database, "sim", 20)
    assert maintenance.compare_counts(database) == "the counts of 1 job are exact"


def test_wrong_counts_are_named_and_left_alone(database: Database) -> None:
    make_job(database, "right", 5)
    wrong = make_job(database, "wrong", 20)
    spoil(database, wrong)
    before = list(database.counts.find())
    slug = jobs.by_id(database, wrong)["slug"]
    said = maintenance.compare_counts(database)
    assert said == f"the counts of 1 of 2 jobs are wrong: wrong ({slug}): 3 New too few, 2 Done too many"
    assert list(database.counts.find()) == before


@pytest.mark.parametrize("lost_slots", [False, True])
def test_wrong_counts_are_repaired_when_asked_to(database: Database, lost_slots: bool) -> None:
    job = make_job(database, "wrong", 20)
    spoil(database, job)
    if lost_slots:
        database.counts.delete_many({"job": job})
    assert "1 of 1 job were wrong and are repaired" in maintenance.compare_counts(database, repair=True)
    assert counts.of_jobs(database, [job])[job] == dict.fromkeys(MajorStatus, 0) | {MajorStatus.NEW: 20}
    assert database.counts.count_documents({"job": job, "site": "local"}) == counts.SLOTS
    assert maintenance.compare_counts(database) == "the counts of 1 job are exact"


def test_nobody_changes_counters_while_they_are_repaired(database: Database) -> None:
    job = make_job(database, "wrong", 20)
    spoil(database, job)
    counted = counts.afresh

    def count(*arguments: Any) -> counts.Counts:
        with (
            pytest.raises(OperationFailure, match="WriteConflict"),
            database.client.start_session() as other,
            other.start_transaction(),
        ):
            counts.change(database, job, {MajorStatus.NEW: 1}, other)
        return counted(*arguments)

    with patch.object(counts, "afresh", count):
        maintenance.compare_counts(database, repair=True)
    assert counts.of_jobs(database, [job])[job][MajorStatus.NEW] == 20


def test_many_wrong_jobs_are_not_all_named(database: Database) -> None:
    for number in range(maintenance.MOST_NAMED + 2):
        spoil(database, make_job(database, f"job-{number:02d}", 0))
    said = maintenance.compare_counts(database)
    assert said.endswith("; and 2 more") and said.count("too many") == maintenance.MOST_NAMED


def test_an_action_keeps_its_last_result(database: Database) -> None:
    assert [row["started"] for row in maintenance.rows(database)] == [None] * len(maintenance.ACTIONS)
    job = make_job(database, "sim", 2)
    expired = {"claimable": False, "claim": {"request": "r", "agent": "a"}, "waits_until": clock.now()}
    database.instances.update_one({"job": job, "instanceId": 1}, {"$set": expired})
    done = maintenance.run(database, "return-expired-leases", "anna")
    assert (done["result"], done["by"]) == ("1 instance returned", "anna")
    assert claims.end_waits(database) == 0
    assert done in maintenance.rows(database)
    again = maintenance.run(database, "return-expired-leases", "bert")
    assert (again["result"], again["by"]) == ("0 instances returned", "bert")
    assert database.maintenance.count_documents({}) == 1
    with pytest.raises(InvalidInput, match="'nosuch': expected one of return-expired-leases, compare-counts"):
        maintenance.run(database, "nosuch", "anna")


def test_an_action_that_fails_says_so(database: Database) -> None:
    with (
        patch.object(claims, "end_waits", side_effect=PyMongoError("connection lost\nmore")),
        pytest.raises(PyMongoError),
    ):
        maintenance.run(database, "return-expired-leases", "anna")
    row = maintenance.rows(database)[0]
    assert row["result"] == "failed: connection lost" and row["ended"]


def test_words_are_configured_or_used(database: Database) -> None:
    make_job(database, "a", 0)
    make_job(database, "b", 0)
    make_job(database, "c", 0, "Old", "GONE")
    assert words.in_use(database, Words(types=("User", "Data"), sites=("CNAF", "local"))) == {
        "types": [
            {"word": "User", "configured": True, "jobs": 2},
            {"word": "Data", "configured": True, "jobs": 0},
            {"word": "Old", "configured": False, "jobs": 1},
        ],
        "sites": [
            {"word": "CNAF", "configured": True, "jobs": 0},
            {"word": "local", "configured": True, "jobs": 2},
            {"word": "GONE", "configured": False, "jobs": 1},
        ],
    }


def test_words_are_counted_from_the_index_alone(database: Database) -> None:
    make_job(database, "a", 0)
    command = {"aggregate": "job", "pipeline": [words.GROUP], "cursor": {}, "hint": dict(words.BY_TYPE_AND_SITE)}
    found = database.jobs.database.command("explain", command, verbosity="executionStats")
    assert '"stage": "FETCH"' not in str(found).replace("'", '"')
    assert "IXSCAN" in str(found)


def test_the_health_of_the_database(database: Database) -> None:
    make_job(database, "a", 3)
    found = health.of_database(database)
    assert found["version"] == database.client.server_info()["version"]
    assert [(member["state"], member["healthy"]) for member in found["members"]] == [("PRIMARY", True)]
    assert found["connections"] > 0 and found["data_bytes"] > 0 and found["index_bytes"] > 0
    assert found["documents"] == sum(
        database.jobs.database[name].count_documents({}) for name in database.jobs.database.list_collection_names()
    )


@pytest.mark.parametrize(("code", "told"), [(health.UNAUTHORIZED, True), (1, False)])
def test_what_the_databases_user_may_not_ask_is_left_out(database: Database, code: int, told: bool) -> None:
    answer = pymongo.database.Database.command

    def refuse(self: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        if command in ("replSetGetStatus", "serverStatus"):
            raise OperationFailure("not authorized", code)
        return answer(self, command, *arguments, **options)

    with patch.object(pymongo.database.Database, "command", refuse):
        if not told:
            with pytest.raises(OperationFailure):
                health.of_database(database)
            return
        found = health.of_database(database)
    assert (found["members"], found["connections"]) == ([], None)
    assert found["replica_set"] and found["index_bytes"] > 0


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served.url, served.admin_token)


def test_tokens_over_http(client: Client, served: Served) -> None:
    text = client.create_token("cnaf", "site", "CNAF")
    assert Client(served.url, text).whoami() == {"result": "ok", "role": "site", "site": "CNAF", "name": "cnaf"}
    row = next(token for token in client.tokens() if token["name"] == "cnaf")
    assert row["last_used"] and text not in str(client.tokens())
    with pytest.raises(Conflict, match="there is a token named 'cnaf'"):
        client.create_token("cnaf", "read")
    client.revoke_token("cnaf")
    with pytest.raises(AccessDenied, match="mistyped or revoked"):
        Client(served.url, text).whoami()
    with pytest.raises(NotFound):
        client.revoke_token("cnaf")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("x", "site", "NOWHERE"), r"site 'NOWHERE' is not known: expected one of local, TEST, CNAF"),
        (("x", "site", None), "names its site"),
        (("x", "read", "CNAF"), "names its site"),
        (("x", "king", None), "role 'king': expected one of admin, operator, submit, read, site"),
        (("x", "site:NOWHERE", None), r"site 'NOWHERE' is not known"),
        (("x", "site:CNAF", "local"), "names another site than 'local'"),
        (("", "read", None), "name: String should have at least 1 character"),
        (("a\nb", "read", None), "printable"),
    ],
)
def test_a_token_that_does_not_fit_is_refused(
    client: Client, served: Served, fields: tuple[str, str, str | None], words: str
) -> None:
    before = served.database.credentials.count_documents({})
    with pytest.raises(InvalidInput, match=words):
        client.create_token(*fields)
    assert served.database.credentials.count_documents({}) == before


def test_users_over_http(client: Client, served: Served) -> None:
    client.create_user("anna", "a long password", "site", "CNAF")
    assert [(user["name"], user["role"], user["site"], user["last_used"]) for user in client.users()] == [
        ("anna", "site", "CNAF", None)
    ]
    first = served.database.users.find_one({"name": "anna"})
    client.set_password("anna", "another password")
    second = served.database.users.find_one({"name": "anna"})
    assert first is not None and second is not None and first["password"] != second["password"]
    with pytest.raises(InvalidInput, match="at least 10 characters"):
        client.set_password("anna", "short")
    with pytest.raises(InvalidInput, match="'NOWHERE' is not known"):
        client.create_user("bert", "a long password", "site", "NOWHERE")
    client.remove_user("anna")
    assert client.users() == []
    with pytest.raises(NotFound, match="no user named 'anna'"):
        client.remove_user("anna")
    with pytest.raises(NotFound, match="no user named 'anna'"):
        client.set_password("anna", "a long password")


def test_a_repeated_reply_never_holds_a_secret(client: Client, served: Served) -> None:
    client.create_user("carl", "a long password", "read")
    header = {"Authorization": f"Bearer {served.admin_token}"}
    for path in ("tokens", "users"):
        text = requests.get(f"{served.url}/administration/{path}/", headers=header, timeout=30).text
        assert "argon2" not in text and "digest" not in text and "password" not in text
    client.remove_user("carl")


def test_maintenance_words_and_health_over_http(client: Client, served: Served) -> None:
    job = make_job(served.database, "counted", 4)
    spoil(served.database, job)
    assert "1 of 1 job are wrong" in client.maintain("compare-counts")["result"]
    assert "were wrong and are repaired" in client.maintain("repair-counts")["result"]
    assert client.maintain("compare-counts")["result"] == "the counts of 1 job are exact"
    row = next(row for row in client.maintenance() if row["name"] == "repair-counts")
    assert row["by"] == "admin" and row["ended"] >= row["started"]
    with pytest.raises(InvalidInput, match="nosuch"):
        client.maintain("nosuch")
    assert {"word": "User", "configured": True, "jobs": 1} in client.words()["types"]
    found = client.detailed_health()
    assert found["server"]["version"] == client.health()["version"] and found["server"]["auth"] == "required"
    assert found["database"]["members"][0]["state"] == "PRIMARY"
