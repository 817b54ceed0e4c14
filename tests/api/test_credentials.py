"""What credentials are good for, and how long: tokens, users, sessions, attempts, and networks that need none."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from DmpWorkflow.core.database import clock, credentials, logins, users
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.job_changes import remove
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from DmpWorkflow.utils.errors import InvalidInput
from tests.api.house import ABROAD, AT_HOME, COOKIE, XML, House, build

PASSWORD = "a long password"


@pytest.fixture(scope="module")
def house(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from build(mongod, tmp_path_factory.mktemp("house"))


# Tokens


def test_a_token_is_refused_with_the_reason_once_it_has_expired(house: House) -> None:
    text, stored = credentials.create(house.database, "short", "read", expires=credentials.expiry("1"))
    browser = house.logged_in(token=text)
    assert house.ask("GET", "/job/", text).status_code == browser.get("/jobs/").status_code == 200
    house.database.credentials.update_one({"_id": stored["_id"]}, {"$set": {"expires": clock.now()}})
    refused = house.ask("GET", "/job/", text)
    assert refused.status_code == 401 and refused.json is not None and "WWW-Authenticate" in refused.headers
    assert refused.json["error"].startswith("the token short expired on 20")
    assert browser.get("/jobs/").headers["Location"].startswith("/login")
    again = house.client().post("/login", data={"token": text})
    assert again.status_code == 401 and "the token short expired on 20" in again.text


def test_when_a_token_expires() -> None:
    assert credentials.expiry("") is None
    in_a_month = credentials.expiry("30")
    assert in_a_month is not None and timedelta(0) <= clock.now() + timedelta(days=30) - in_a_month < timedelta(1)
    assert credentials.expiry("2999-12-31") == datetime(3000, 1, 1, tzinfo=UTC)  # that day is part of it
    for text in ("0", "-1", "36501", "2026-13-01", "31.12.2999", "9999-12-31", "٣", "soon", "x" * 99):
        with pytest.raises(InvalidInput, match=r"expected days from 1 to 36500, or a date as in 2027-01-31"):
            credentials.expiry(text)
    with pytest.raises(InvalidInput, match="that day is over"):
        credentials.expiry("2020-01-01")


def test_lists_tell_when_tokens_expire_and_who_is_disabled(house: House) -> None:
    ask, admin = house.ask, house.tokens["admin"]
    body = {"name": "cnaf", "role": "site:CNAF", "expires": "2999-12-31"}
    assert ask("POST", "/administration/tokens/", admin, json=body).status_code == 200
    assert ask(
        "POST", "/administration/users/", admin, json={"name": "eva", "role": "operator", "password": PASSWORD}
    )
    assert ask("POST", "/administration/users/disable/", admin, json={"name": "eva"}).status_code == 200
    tokens = ask("GET", "/administration/tokens/", admin).json or {}
    people = ask("GET", "/administration/users/", admin).json or {}
    row = next(token for token in tokens["tokens"] if token["name"] == "cnaf")
    assert (row["role"], row["site"], row["expires"]) == ("site", "CNAF", "3000-01-01T00:00:00.000Z")
    assert [(user["name"], user["role"], user["disabled"]) for user in people["users"]] == [("eva", "operator", True)]
    page = house.logged_in(token=admin).get("/admin/").text
    assert 'datetime="3000-01-01T00:00:00.000Z"' in page and "disabled" in page and "Enable: eva" in page
    assert "Disable: eva" not in page
    for_operators = house.logged_in(token=house.tokens["operator"]).get("/admin/").text
    assert "Repair counts" in for_operators and "cnaf" not in for_operators and "eva" not in for_operators
    users.remove(house.database, "eva")


# Users and sessions


def test_a_copied_cookie_is_worth_nothing_after_the_log_out(house: House) -> None:
    browser, other = house.logged_in(token=house.tokens["read"]), house.logged_in(token=house.tokens["read"])
    cookie = browser.get_cookie(COOKIE)
    assert cookie is not None
    thief = house.client()
    thief.set_cookie(COOKIE, cookie.value)
    assert thief.get("/jobs/").status_code == 200
    assert browser.post("/logout").status_code == 302
    for left in (thief, browser):
        assert left.get("/jobs/").headers["Location"].startswith("/login")
    thief.set_cookie(COOKIE, cookie.value)
    assert thief.get("/job/").status_code == 401
    assert other.get("/jobs/").status_code == 200  # of another log-in of the same token


def test_a_disabled_user_is_out_at_once_and_comes_back_by_logging_in(house: House) -> None:
    users.create(house.database, "fay", PASSWORD, "read")
    browser = house.logged_in(name="fay", password=PASSWORD)
    (login,) = house.database.logins.find({"kind": "user"})
    users.set_disabled(house.database, "fay", True)
    house.database.logins.insert_one(login)  # as one that began at the same moment
    assert browser.get("/jobs/").headers["Location"].startswith("/login")
    refused = house.client().post("/login", data={"name": "fay", "password": PASSWORD})
    assert refused.status_code == 401 and "This user is disabled" in refused.text
    guess = house.client().post("/login", data={"name": "fay", "password": "another password"})
    assert "disabled" not in guess.text
    house.database.logins.delete_one({"_id": login["_id"]})
    users.set_disabled(house.database, "fay", False)
    assert browser.get("/jobs/").headers["Location"].startswith("/login")
    assert house.logged_in(name="fay", password=PASSWORD).get("/jobs/").status_code == 200
    users.remove(house.database, "fay")
    assert house.database.logins.count_documents({"kind": "user"}) == 0


def test_a_login_lasts_while_it_is_used(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    text = logins.begin(database, "user", ObjectId(), "stamp")
    assert text not in str(database.logins.find_one())
    now = clock.now()
    for hours, known in ((11, True), (22, True), (35, False)):
        monkeypatch.setattr(clock, "now", lambda hours=hours: now + timedelta(hours=hours))
        assert (logins.find(database, text) is not None) == known
    indexes = database.logins.index_information().values()
    assert [index.get("expireAfterSeconds") for index in indexes if index["key"] == [("expires", 1)]] == [0]


def test_ending_all_logins_of_an_account_reads_the_index(database: Database) -> None:
    plan = database.logins.find({"account": ObjectId()}).explain()["queryPlanner"]["winningPlan"]
    assert plan["inputStage"]["indexName"] == "account_1"


# Attempts


@pytest.fixture
def attempt(house: House) -> Iterator[tuple[Document, str]]:
    """A job's instance that runs, and the token of its attempt."""
    job = house.new_job("owner")
    (instance,) = house.claim()
    apply_report(house.database, StatusReport(job["_id"], 1, Report(MajorStatus.RUNNING, 1, 1)))
    yield instance, house.attempt_token(instance)
    house.database.instances.delete_many({"job": job["_id"]})


def use(house: House, instance: Document, token: str, fields: dict[str, str] | None = None) -> tuple[int, int]:
    """Report and register a file with an attempt's token; returns the status of each."""
    report = {"t_id": str(instance["job"]), "inst_id": 1, "attempt": 1, "sequence": 5, "major_status": "Running"}
    file = {"filename": "/out", "site": "local", "action": "register"} | (fields or {})
    reported = house.ask("POST", "/jobstatus/", token, json={"args": report})
    return reported.status_code, house.ask("POST", "/datacat/", token, json=file).status_code


def test_an_attempts_token_is_good_while_it_runs(house: House, attempt: tuple[Document, str]) -> None:
    assert use(house, *attempt) == (200, 200)


def test_it_registers_nothing_elsewhere_and_overwrites_nothing(house: House, attempt: tuple[Document, str]) -> None:
    for name, value in (("site", "CNAF"), ("action", "delete"), ("action", "setStatus"), ("overwrite", "1")):
        assert use(house, *attempt, {name: value})[1] == 403
    assert not house.database.files.find_one({"site": "CNAF"})


@pytest.mark.parametrize("end", [MajorStatus.DONE, MajorStatus.FAILED, MajorStatus.TERMINATED])
def test_it_is_worth_nothing_once_the_attempt_is_over(
    house: House, attempt: tuple[Document, str], end: MajorStatus
) -> None:
    apply_report(house.database, StatusReport(attempt[0]["job"], 1, Report(end, 1, 2)))
    assert use(house, *attempt) == (409, 409)


def test_it_still_registers_for_an_attempt_that_was_only_thought_lost(
    house: House, attempt: tuple[Document, str]
) -> None:
    lost = StatusReport(attempt[0]["job"], 1, Report(MajorStatus.TERMINATED, 1), lost=True)
    apply_report(house.database, lost)
    assert use(house, *attempt)[1] == 200


def test_it_is_worth_nothing_for_another_attempt(house: House, attempt: tuple[Document, str]) -> None:
    roll_back(house.database, attempt[0]["job"], [1])
    assert use(house, *attempt) == (409, 409)
    (second,) = house.claim()
    assert second["attempt"] == 2
    assert use(house, *attempt) == (409, 409)
    report = {"t_id": str(second["job"]), "inst_id": 1, "attempt": 2, "sequence": 1, "major_status": "Running"}
    assert house.ask("POST", "/jobstatus/", attempt[1], json={"args": report}).status_code == 409


def test_it_is_worth_nothing_for_a_removed_job(house: House, attempt: tuple[Document, str]) -> None:
    apply_report(house.database, StatusReport(attempt[0]["job"], 1, Report(MajorStatus.FAILED, 1, 2)))
    job = house.database.jobs.find_one({"_id": attempt[0]["job"]})
    assert job is not None
    remove(house.database, job)
    assert use(house, *attempt) == (404, 404)


def test_it_is_worth_nothing_for_another_instance(house: House, attempt: tuple[Document, str]) -> None:
    other = house.new_job("owner")
    report = {"t_id": str(other["_id"]), "inst_id": 1, "attempt": 1, "sequence": 1, "major_status": "Running"}
    assert house.ask("POST", "/jobstatus/", attempt[1], json={"args": report}).status_code == 403
    in_bulk = house.ask("POST", "/jobstatusBulk/", attempt[1], json={"reports": [report]}).json
    assert in_bulk is not None and in_bulk["results"][0]["status"] == 403
    changed = attempt[1].replace(str(attempt[0]["job"]), str(other["_id"]))
    assert house.ask("POST", "/jobstatus/", changed, json={"args": report}).status_code == 401


# Networks


@pytest.mark.parametrize(
    ("address", "old", "new"),
    [
        (ABROAD, 401, 401),
        (AT_HOME, 200, 401),
        ("10.1.9.4", 401, 401),  # the narrower network wins
        ("::ffff:10.1.2.3", 200, 401),  # as a socket for both kinds of addresses shows it
        ("fd00::7", 200, 401),
        ("2001:db8::1", 401, 401),
        ("127.0.0.1", 200, 200),
        ("", 401, 401),
    ],
)
def test_what_goes_without_a_credential_depends_on_the_network(
    house: House, address: str, old: int, new: int
) -> None:
    assert house.ask("GET", "/datacat/", at=address).status_code == old
    assert house.ask("GET", "/administration/users/", at=address).status_code == new
    assert house.ask("GET", "/jobs/", at=address).status_code == (200 if new == 200 else 303)


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer ", "Basic eDp3cm9uZw==", "Basic eDo=", "Basic !", "Digest a=b", "nonsense", ""]
)
def test_a_wrong_credential_is_refused_where_none_would_do(house: House, header: str) -> None:
    asked = house.app.test_client(use_cookies=False).get(
        "/datacat/", headers={"Authorization": header}, environ_base={"REMOTE_ADDR": AT_HOME}
    )
    assert asked.status_code == 401


def test_old_clients_do_all_they_need_without_a_credential(house: House) -> None:
    ask = house.ask
    fields: dict[str, Any] = {"taskname": "unnamed", "n_instances": "2", "t_type": "User", "site": "local"}
    file = {"file": (io.BytesIO(XML.format(name="unnamed").encode()), "job.xml")}
    made = ask("POST", "/job/", at=AT_HOME, data=fields | file).json
    assert made is not None and made["result"] == "ok"
    stored = house.database.jobs.find_one({"title": "unnamed"})
    assert stored is not None and stored["owner"] == ""
    fetched = ask("GET", "/newjobs/", at=AT_HOME, data={"site": "local", "limit": "1"}).json
    assert fetched is not None and len(fetched["jobs"]) == 1
    report = f'{{"t_id": "{made["jobID"]}", "inst_id": 1, "major_status": "%s"}}'
    for status in ("Submitted", "Running", "Failed", "New"):
        assert (ask("POST", "/jobstatus/", at=AT_HOME, data={"args": report % status}).json or {})["result"] == "ok"
    assert ask("POST", "/jobstatus/", data={"args": report % "Running"}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_gets_nothing_where_no_credential_is_needed(
    house: House, headers: dict[str, str], status: int
) -> None:
    user = {"name": "mallory", "role": "admin", "password": PASSWORD}
    for address, path, form in (
        ("127.0.0.1", "/administration/users/", user),
        (AT_HOME, "/testDB/", {"hostname": "h"}),
    ):
        reply = house.app.test_client(use_cookies=False).post(
            path, data=form, headers=headers, environ_base={"REMOTE_ADDR": address}
        )
        assert reply.status_code == status
    assert house.database.users.delete_many({"name": "mallory"}).deleted_count == (status == 200)


def test_the_server_says_that_it_is_open(house: House) -> None:
    health = house.ask("GET", "/health").json
    assert health is not None and health["auth"] == "off"  # the least that any client needs
    detailed = house.ask("GET", "/administration/health/", house.tokens["operator"]).json
    said = (
        "clients from 10.1.0.0/16 may do what old clients need; clients from 127.0.0.0/8 may do everything; "
        "clients from fd00::/8 may do what old clients need"
    )
    assert detailed is not None and detailed["server"]["open_to"] == said
    for path in ("/login", "/jobs/", "/jobs/nosuch"):
        browser = house.logged_in(token=house.tokens["read"])
        assert f"Access is open: without a credential, {said}." in browser.get(path).text
    assert "Log out" not in house.ask("GET", "/jobs/", at="127.0.0.1").text


def test_basic_credentials_take_any_user_name(house: House) -> None:
    client = house.app.test_client(use_cookies=False)
    for token, status in ((house.tokens["read"], 200), ("wrong", 401)):
        reply = client.get("/job/", auth=("anybody", token), environ_base={"REMOTE_ADDR": ABROAD})
        assert reply.status_code == status
