"""Whose jobs somebody may change, through every way in; in bulk, each item has its own result."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from DmpWorkflow.core.database import credentials, jobs, users
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.utils.errors import AccessDenied, Conflict
from tests.api.house import AT_HOME, XML, House, build

PASSWORD = "a long password"


@pytest.fixture(scope="module")
def house(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from build(mongod, tmp_path_factory.mktemp("house"))


def form(xml: str, **fields: str) -> dict[str, Any]:
    return {**fields, "file": (io.BytesIO(xml.encode()), "job.xml")}


def changes(job: Document) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return a request for each way to change a job."""
    slug, title = job["slug"], job["title"]
    arguments = {"t_id": str(job["_id"]), "inst_id": 1}
    again = XML.format(name=title)
    return {
        "priority": ("PATCH", f"/job/{slug}/", {"json": {"priority": 7}}),
        "tags": ("PATCH", f"/job/{slug}/", {"json": {"tags": ["mine"]}}),
        "remove": ("DELETE", f"/job/{slug}/", {"json": {"confirm": title}}),
        "add instances": ("POST", "/jobInstances/", {"json": {"taskname": title, "n_instances": 2}}),
        "submit again": ("POST", "/job/", {"data": form(again, n_instances="2")}),
        "replace": ("POST", "/job/", {"data": form(again.replace("true", "false"), replace="1")}),
        "roll back": ("POST", "/rollback/", {"json": {"job": slug, "instances": [1]}}),
        "kill": ("POST", "/kill/", {"json": {"job": str(job["_id"]), "instances": [1]}}),
        "old roll-back": ("POST", "/jobstatus/", {"json": {"args": arguments | {"major_status": "New"}}}),
        "old report": ("POST", "/jobstatus/", {"json": {"args": arguments | {"major_status": "Submitted"}}}),
    }


WAYS = tuple(changes({"slug": "", "title": "", "_id": ""}))


def stored(house: House, job: Document) -> list[Any]:
    """Return all that is known of a job."""
    own = {"job": job["_id"]}
    found = [house.database.jobs.find_one({"_id": job["_id"]})]
    return [*found, *house.database.instances.find(own), *house.database.counts.find(own, sort=[("_id", 1)])]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("owner", "said"), [("owner", "belongs to owner"), ("", "belongs to nobody")], ids=["another's", "nobody's"]
)
def test_a_submitter_changes_no_job_but_its_own(house: House, way: str, owner: str, said: str) -> None:
    job = house.new_job(owner)
    before = stored(house, job)
    method, path, content = changes(job)[way]
    reply = house.ask(method, path, house.tokens["stranger"], **content)
    assert reply.status_code == 403 and reply.json is not None
    assert reply.json["error"].startswith(f"job {job['title']!r} {said}: ") and "\n" not in reply.json["error"]
    assert stored(house, job) == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("role", "owner"), [("owner", "owner"), ("operator", "owner"), ("operator", "")])
def test_its_owner_and_operators_change_a_job(house: House, way: str, role: str, owner: str) -> None:
    job = house.new_job(owner)
    before = stored(house, job)
    method, path, content = changes(job)[way]
    reply = house.ask(method, path, house.tokens[role], **content)
    assert reply.status_code == 200 and reply.json is not None and reply.json["result"] == "ok", reply.text
    assert stored(house, job) != before
    kept = house.database.jobs.find_one({"_id": job["_id"]}) or {"owner": owner}
    assert kept["owner"] == owner  # whoever changes it


@pytest.mark.parametrize("way", ["add instances", "submit again", "old roll-back"])
def test_without_a_credential_an_old_client_changes_what_is_nobodys(house: House, way: str) -> None:
    for owner, status in (("", 200), ("owner", 403)):
        method, path, content = changes(house.new_job(owner))[way]
        assert house.ask(method, path, at=AT_HOME, **content).status_code == status


def test_reports_in_bulk_have_a_result_each(house: House) -> None:
    others, own = house.new_job("owner"), house.new_job("stranger")
    report = {"inst_id": 1, "major_status": "Submitted"}
    reports = [report | {"t_id": str(job["_id"])} for job in (others, own, {"_id": "0" * 24})]
    reply = house.ask("POST", "/jobstatusBulk/", house.tokens["stranger"], json={"reports": reports})
    assert reply.json is not None
    assert [result.get("status", 200) for result in reply.json["results"]] == [403, 200, 404]
    assert "belongs to owner" in reply.json["results"][0]["error"]
    assert [house.database.instances.count_documents({"job": job["_id"], "status": "Submitted"})
            for job in (others, own)] == [0, 1]  # fmt: skip


def test_a_file_with_a_job_of_somebody_else_makes_nothing(house: House) -> None:
    job = house.new_job("owner")
    names = ("first-of-two", job["title"])
    xml = f"<Jobs>{''.join(XML.format(name=name)[6:-7] for name in names)}</Jobs>"
    checked = house.ask("POST", "/job/check/", house.tokens["stranger"], data=form(xml)).json
    assert checked is not None and not checked["valid"] and "belongs to owner" in checked["problems"][0]["text"]
    assert house.ask("POST", "/job/", house.tokens["stranger"], data=form(xml)).status_code == 403
    assert not house.database.jobs.find_one({"title": "first-of-two"})


def test_who_makes_a_job_first_keeps_it(database: Database) -> None:
    start = threading.Barrier(8)

    def submit(number: int) -> str:
        start.wait()
        name = f"person-{number}"
        try:
            jobs.submit(database, jobs.NewJob("wanted", "User", "local", "<Jobs/>", owner=name, own_only=True))
        except AccessDenied:
            return ""
        return name

    with ThreadPoolExecutor(8) as pool:
        owners = [name for name in pool.map(submit, range(8)) if name]
    kept = database.jobs.find_one({"title": "wanted"})
    assert kept is not None and owners == [kept["owner"]]


def test_a_copy_belongs_to_who_makes_it(house: House) -> None:
    path = f"/job/{house.new_job('owner')['slug']}/clone/"
    reply = house.ask("POST", path, house.tokens["stranger"], json={"title": "copied"})
    copy = house.database.jobs.find_one({"title": "copied"})
    assert reply.status_code == 200 and copy is not None and copy["owner"] == "stranger"


def test_a_user_and_a_token_never_share_a_name(database: Database) -> None:
    credentials.create(database, "anna", "submit")
    with pytest.raises(Conflict, match="there is a token named 'anna', whose jobs are not a user's"):
        users.create(database, "anna", PASSWORD, "submit")
    users.create(database, "ben", PASSWORD, "submit")
    with pytest.raises(Conflict, match="there is a user named 'ben', whose jobs are not a token's"):
        credentials.create(database, "ben", "submit")
    assert database.users.count_documents({}) == database.credentials.count_documents({}) == 1


def test_of_a_user_and_a_token_made_at_once_one_at_most_gets_the_name(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "_hash", str)  # which takes so long that they would not meet
    for number in range(20):
        name, start = f"name-{number}", threading.Barrier(2)

        def make(kind: str, name: str = name, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                if kind == "user":
                    users.create(database, name, PASSWORD, "submit")
                else:
                    credentials.create(database, name, "submit")
            except Conflict:
                pass

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(make, ("user", "token")))
        both = [collection.find_one({"name": name}) for collection in (database.users, database.credentials)]
        assert None in both


def test_a_page_offers_only_what_one_may_do(house: House) -> None:
    job = house.new_job("owner")
    pages = [f"/jobs/{job['slug']}", f"/jobs/{job['slug']}/1"]
    browsers = {name: house.logged_in(token=house.tokens[name]) for name in ("owner", "operator", "stranger", "read")}
    for path in pages:
        for refresh in ({}, {"HX-Request": "true"}):
            if path == pages[0] and refresh:
                continue  # its buttons are outside of what refreshes
            shown = {name: browser.get(path, headers=refresh).text for name, browser in browsers.items()}
            offers = {name: "Kill…" in text and "Roll back…" in text for name, text in shown.items()}
            assert offers == {"owner": True, "operator": True, "stranger": False, "read": False}
    first = browsers["stranger"].get(pages[0]).text
    assert "This job belongs to owner" in first and "Clone" in first and "Archive" not in first
    assert "Clone" not in browsers["read"].get(pages[0]).text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("instances", {"number": "2"}),
        ("rollback", {"which": "numbers", "numbers": "1"}),
        ("kill", {"which": "numbers", "numbers": "1"}),
        ("change", {"priority": "3"}),
        ("archive", {"archived": "1"}),
        ("remove", {}),
        ("1/rollback", {}),
        ("1/kill", {}),
    ],
)
def test_a_form_that_was_not_offered_is_refused(house: House, path: str, fields: dict[str, str]) -> None:
    job = house.new_job("owner")
    before = stored(house, job)
    browser = house.logged_in(token=house.tokens["stranger"])
    reply = browser.post(f"/jobs/{job['slug']}/{path}", data=fields | {"confirm": job["title"]})
    assert reply.status_code == 403 and "belongs to owner" in reply.text
    assert stored(house, job) == before
