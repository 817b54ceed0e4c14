"""Jobs found among others: by what they are, by their counts, in any order, page by page."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import counts, jobs, listing
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.job_search import JobFilter, search
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput
from tests.served import Served

NEW, DONE, FAILED = MajorStatus.NEW, MajorStatus.DONE, MajorStatus.FAILED
XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'


def test_a_job_is_kept_under_the_name_of_who_submitted_it(served: Served) -> None:
    token = {"Authorization": f"Bearer {served.submit_token}"}
    made = requests.post(f"{served.url}/job/", files={"file": XML % b"owned"}, headers=token, timeout=60).json()
    shown = requests.get(f"{served.url}/job/{made['jobs'][0]['slug']}/", headers=token, timeout=60).json()["job"]
    assert (shown["owner"], shown["tags"], shown["archived"], shown["parent_count"]) == ("submit", [], False, 0)


def test_a_job_stored_before_there_were_owners_reads_as_nobodys(database: Database) -> None:
    made = jobs.submit(database, jobs.NewJob("old", "User", "local", "<Jobs/>"))
    database.jobs.update_one({"_id": made["_id"]}, {"$unset": {"owner": "", "tags": "", "archived": ""}})
    row = listing.job_summary(database, jobs.by_slug(database, made["slug"]))
    assert (row["owner"], row["tags"], row["archived"]) == ("", [], False)


def make(database: Database, title: str, counted: dict[MajorStatus, int] | None = None, **fields: Any) -> ObjectId:
    """Make a job with counters that say so, and what is set by hand."""
    known = {
        "type": fields.pop("type", "User"),
        "site": fields.pop("site", "local"),
        "owner": fields.pop("owner", ""),
    }
    new = jobs.NewJob(title, body="<Jobs/>", **known)
    made: ObjectId = jobs.submit(database, new)["_id"]
    database.transaction(lambda session: counts.change(database, made, counted or {}, session))
    if fields:
        database.jobs.update_one({"_id": made}, {"$set": fields})
    return made


def titles(database: Database, **chosen: Any) -> list[str]:
    page = search(database, JobFilter(**chosen), sort="title", descending=False)
    assert page.matching == len(page.rows)
    return [row["title"] for row in page.rows]


@pytest.fixture
def several(database: Database) -> Database:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    make(database, "Alpha", {DONE: 3, FAILED: 1}, owner="anna", tags=["flight", "2016"], created_at=day)
    make(database, "beta.x", {NEW: 4}, site="CNAF", type="Generation", created_at=day + timedelta(days=1))
    make(database, "gamma", {DONE: 1, NEW: 9}, owner="ben", created_at=day + timedelta(days=2))
    make(database, "delta", owner="ANNA", archived=True, created_at=day + timedelta(days=3))
    return database


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, ["Alpha", "beta.x", "gamma"]),
        ({"archived": True}, ["delta"]),
        ({"archived": None}, ["Alpha", "beta.x", "delta", "gamma"]),
        ({"text": "aLp"}, ["Alpha"]),
        ({"text": "anna", "archived": None}, ["Alpha", "delta"]),
        ({"text": "LIGHT"}, ["Alpha"]),
        ({"text": "a.x"}, ["beta.x"]),
        ({"text": ".*"}, []),
        ({"title": "gamma"}, ["gamma"]),
        ({"title": "gam"}, []),
        ({"type": "Generation"}, ["beta.x"]),
        ({"site": "local"}, ["Alpha", "gamma"]),
        ({"owner": "ben"}, ["gamma"]),
        ({"tag": "2016"}, ["Alpha"]),
        ({"status": "Failed"}, ["Alpha"]),
        ({"status": "Done", "text": "gam"}, ["gamma"]),
        ({"since": datetime(2026, 1, 2, tzinfo=UTC)}, ["beta.x", "gamma"]),
        ({"until": datetime(2026, 1, 2, tzinfo=UTC)}, ["Alpha"]),
    ],
)
def test_jobs_are_found_by_what_they_are(several: Database, chosen: dict[str, Any], found: list[str]) -> None:
    assert titles(several, **chosen) == found


def test_a_job_is_found_by_its_slug(several: Database) -> None:
    slug = jobs.by_name(several, "gamma")["slug"]
    assert titles(several, text=slug[2:9].upper()) == ["gamma"]


@pytest.mark.parametrize(
    ("sort", "ascending"),
    [
        ("created", ["Alpha", "beta.x", "gamma"]),
        ("title", ["Alpha", "beta.x", "gamma"]),
        ("site", ["beta.x", "Alpha", "gamma"]),
        ("type", ["beta.x", "Alpha", "gamma"]),
        ("progress", ["beta.x", "gamma", "Alpha"]),
        ("failed", ["beta.x", "gamma", "Alpha"]),
        ("total", ["Alpha", "beta.x", "gamma"]),
    ],
)
@pytest.mark.parametrize("status", ["", "New"])
def test_every_order_is_paged_both_ways_without_gap_or_repeat(
    several: Database, sort: str, ascending: list[str], status: str
) -> None:
    expected = [title for title in ascending if not status or title != "Alpha"]
    for descending in (False, True):
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = search(several, JobFilter(status=status), sort, descending, limit=1, after=cursor)
            assert (len(page.rows), page.matching) == (1, len(expected))
            seen += [row["title"] for row in page.rows]
            cursor = page.next
        assert seen == expected[:: -1 if descending else 1]


def test_rows_tell_of_owner_tags_parents_and_counts(several: Database) -> None:
    alpha = jobs.by_name(several, "Alpha")["_id"]
    jobs.submit(several, jobs.NewJob("child", "User", "local", "<Jobs/>", dependencies=(alpha,)))
    youngest, *_, eldest = search(several, JobFilter()).rows
    assert (youngest["title"], youngest["parent_count"]) == ("child", 1)
    assert (eldest["owner"], eldest["tags"], eldest["archived"]) == ("anna", ["flight", "2016"], False)
    assert (eldest["counts"]["Done"], eldest["counts"]["Failed"], eldest["counts"]["New"]) == (3, 1, 0)


@pytest.mark.parametrize(
    ("sort", "after", "words"),
    [
        ("created", "xyz", "'xyz' is no cursor"),
        ("created", "99999999999999999-6b04cc916a00b242cb9c95ef", "no cursor"),
        ("total", "nan-6b04cc916a00b242cb9c95ef", "no cursor"),
        ("total", "1.0-6b04", "no cursor"),
        ("size", "", "sort 'size': expected one of created, title"),
    ],
)
def test_what_cannot_be_asked_is_said_plainly(several: Database, sort: str, after: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        search(several, JobFilter(), sort, after=after)
    with pytest.raises(InvalidInput, match="status 'Nonsense'"):
        search(several, JobFilter(status="Nonsense"))


def reads(database: Database, sort: str, **chosen: Any) -> dict[str, int]:
    """Return how often each collection was asked for one page."""
    listener = Asked()
    host, port = database.client.address or ("", 0)
    client: MongoClient[dict[str, Any]] = MongoClient(host, port, tz_aware=True, event_listeners=[listener])
    with client:
        search(Database("", database.jobs.database.name, client), JobFilter(**chosen), sort, limit=2)
    return dict(listener.commands)


class Asked(CommandListener):
    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in ("find", "aggregate"):
            self.commands[event.command[event.command_name]] += 1

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def test_a_page_costs_a_handful_of_queries(several: Database) -> None:
    for number in range(20):
        make(several, f"more{number}")
    assert reads(several, "created") == {"job": 2, "instance_count": 1}  # the page, how many match; its counts
    assert reads(several, "title") == {"job": 2, "instance_count": 1}
    assert reads(several, "failed") == {"job": 2, "instance_count": 2}
    assert reads(several, "created", status="Done") == {"job": 2, "instance_count": 2}


def test_the_list_of_jobs_over_http(served: Served) -> None:
    client = Client(served.url, served.admin_token)
    for number in range(3):
        client.create_job(XML % b"http-%d" % number, instances=number)
    found = list(client.jobs(text="HTTP-", sort="total", descending=False))
    assert [job["title"] for job in found] == ["http-0", "http-1", "http-2"]
    token = {"Authorization": f"Bearer {served.read_token}"}

    def ask(**query: Any) -> Any:
        return requests.get(f"{served.url}/job/", params=query, headers=token, timeout=60).json()

    first = ask(text="http-", sort="total", limit=2)
    assert ([job["title"] for job in first["jobs"]], first["matching"]) == (["http-2", "http-1"], 3)
    second = ask(text="http-", sort="total", limit=2, before=first["next"])
    assert ([job["title"] for job in second["jobs"]], second["next"]) == (["http-0"], None)
    assert ask(text="http-", status="New", since="2026-01-01", until="")["matching"] == 2
    assert "since" in ask(since="yesterday")["error"]
    assert "out of bounds" in ask(since="0001-01-01T00:00:00+14:00")["error"]
