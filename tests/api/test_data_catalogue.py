"""The data catalogue as it is searched, paged and exported."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import data_catalogue
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.data_catalogue import FileQuery, SearchTooWide
from DmpWorkflow.utils.errors import AccessDenied, InvalidInput
from DmpWorkflow.utils.exports import csv_lines, json_lines
from tests.served import Served


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["filename"] for row in rows]


def all_pages(database: Database, query: FileQuery, limit: int) -> list[str]:
    found, after = data_catalogue.page(database, query, limit)
    seen = names(found)
    while after is not None:
        found, after = data_catalogue.page(database, query, limit, after)
        seen += names(found)
    return seen


@pytest.mark.parametrize("sort", ["time", "name"])
@pytest.mark.parametrize("site", ["", "local"])
def test_pages_have_every_file_once_although_some_go_meanwhile(database: Database, sort: str, site: str) -> None:
    for part in ("b", "a"):  # files of one request have the same time
        data_catalogue.register(database, "local", [f"/{part}/{n}" for n in range(7)], "root")
    data_catalogue.register(database, "CNAF", ["/a/1", "/a/2", "/a/3"], "root")
    query = FileQuery(sort=sort, site=site)
    seen = all_pages(database, query, 3)
    assert len(seen) == (14 if site else 17)
    if sort == "name":
        assert seen == sorted(seen)
    else:
        assert [name[:2] for name in seen[-7:]] == ["/b"] * 7
    first, after = data_catalogue.page(database, query, 3)
    database.files.delete_one({"_id": ObjectId(first[-1]["id"])})
    assert after is not None
    assert names(data_catalogue.page(database, query, 3, after)[0]) == seen[3:6]


def test_a_text_with_a_slash_in_front_is_the_beginning_and_other_text_any_part(database: Database) -> None:
    stored = ["/data/Photon.root", "root://s//data/photon.root", "/x/data/p(h.*ton", "photon"]
    data_catalogue.register(database, "local", stored, "root")
    found = {
        text: set(all_pages(database, FileQuery(name=text), 10)) for text in ("/data", "root://", "PHOTON", "h.*t")
    }
    assert found == {
        "/data": {stored[0]},
        "root://": {stored[1]},
        "PHOTON": {stored[0], stored[1], stored[3]},
        "h.*t": {stored[2]},
    }


@pytest.mark.parametrize(
    "query",
    [
        FileQuery(name="/data/run7/"), FileQuery(name="/data/run7/", sort="name"), FileQuery(site="CNAF"),
        FileQuery(status="Orphaned"), FileQuery(), FileQuery(sort="name"), FileQuery(site="local", sort="name"),
    ],
)  # fmt: skip
def test_the_first_page_reads_little_of_a_long_catalogue(database: Database, query: FileQuery) -> None:
    time = datetime.now(UTC)
    database.files.insert_many(
        {
            "filename": f"/data/run{n // 500}/{n}", "site": "local" if n % 100 else "CNAF", "filetype": "root",
            "status": "New" if n % 150 else "Orphaned", "created_at": time,
        } for n in range(20_000)
    )  # fmt: skip
    plan = database.files.find(query.as_filter(), sort=query.as_order(), limit=11).explain()["executionStats"]
    assert plan["totalDocsExamined"] <= 1000 and plan["totalKeysExamined"] <= 1000


def test_a_search_that_takes_too_long_says_how_to_narrow_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_catalogue.register(database, "local", [f"/{n}" for n in range(10)], "root")
    slow = {"$where": "sleep(100) || true"}
    monkeypatch.setattr(FileQuery, "as_filter", lambda self: slow)
    monkeypatch.setattr(data_catalogue, "SEARCH_MILLISECONDS", 50)
    with pytest.raises(SearchTooWide, match="choose a site or a status"):
        data_catalogue.page(database, FileQuery(), 10)
    with pytest.raises(SearchTooWide):
        data_catalogue.every(database, FileQuery())  # before the first line is sent


@pytest.mark.parametrize("sort", ["time", "name"])
@pytest.mark.parametrize(
    "place", ["", "[]", "[1]", '["a"]', '["a", 1]', '["\\ud800", "a"]', "[1e999, 2]", '[1, "x"]', "{}", "[" * 2000]
)
def test_what_is_no_cursor_is_refused(database: Database, sort: str, place: str) -> None:
    cursor = base64.urlsafe_b64encode(place.encode()).decode() or "!"
    with pytest.raises(InvalidInput, match="is no cursor"):
        data_catalogue.page(database, FileQuery(sort=sort), 10, cursor)


def test_files_are_changed_by_their_ids_at_ones_own_site(database: Database) -> None:
    data_catalogue.register(database, "local", ["/a"], "root")
    data_catalogue.register(database, "CNAF", ["/b"], "root")
    ids = [file["_id"] for file in database.files.find()]
    assert data_catalogue.set_status_of(database, ids, "Copied", "local") == 1
    assert {file["filename"]: file["status"] for file in database.files.find()} == {"/a": "Copied", "/b": "New"}
    assert data_catalogue.delete_these(database, ids, "CNAF") == 1
    assert [file["filename"] for file in database.files.find()] == ["/a"]
    assert data_catalogue.delete_these(database, ids) == 1


def test_cells_are_no_formulas_and_lines_are_whole(database: Database) -> None:
    values = ["=1+1", "+1", "-1", "@a", "\t=a", 'say "hi", you', "two\nlines", "\0", "<b>", "plain", "", None, 3]
    written = "".join(csv_lines(["a"], [{"a": value} for value in values]))
    assert written == "".join([
        "a\r\n", "'=1+1\r\n", "'+1\r\n", "'-1\r\n", "'@a\r\n", "'\t=a\r\n", '"say ""hi"", you"\r\n',
        '"two\nlines"\r\n', "␀\r\n", "<b>\r\n", "plain\r\n", '""\r\n', '""\r\n', "3\r\n",
    ])  # fmt: skip
    rows = [{"a": value} for value in values]
    assert json.loads("".join(json_lines(rows))) == rows
    assert json.loads("".join(json_lines([]))) == []


def test_a_sites_token_gets_its_own_files_and_clients_get_all(served: Served) -> None:
    data_catalogue.register(served.database, "local", [f"/mine/{n}" for n in range(2500)][:1000], "root")
    data_catalogue.register(served.database, "local", [f"/mine/{n}" for n in range(1000, 1200)], "root")
    data_catalogue.register(served.database, "CNAF", ["/theirs/1"], "text")
    with Client(served.url, served.read_token) as reader, Client(served.url, served.site_token) as site:
        assert len(list(reader.file_rows())) == 1201
        assert {row["site"] for row in site.file_rows()} == {"local"}
        assert [row["filename"] for row in reader.file_rows(filetype="text")] == ["/theirs/1"]
        assert len(list(reader.file_rows(name="/mine", sort="name", most=7))) == 7
        with pytest.raises(AccessDenied, match="this token is for site local"):
            list(site.file_rows(site="CNAF"))
        with pytest.raises(AccessDenied):
            reader.change_file("setStatus", "/mine/1", site="local", status="Copied")
    reply = requests.get(f"{served.url}/datacat/files/?sort=size", auth=("r", served.read_token), timeout=30)
    assert reply.status_code == 422 and "sort" in reply.json()["error"]
