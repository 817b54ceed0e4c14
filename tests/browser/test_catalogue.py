import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from DmpWorkflow.core.database import clock, data_catalogue
from tests.browser.conftest import LOOKS, logged_in, watched_page
from tests.served import Served

EVIL = [
    "<script>alert(1)</script>",
    "=cmd()|'/C calc'!A0",
    "a\0b\x1b[31m",
    "/long/" + "x" * 994,
    "@SUM(1)",
    "\ttab",
    "-1",
]


@pytest.fixture(scope="module", autouse=True)
def files(served: Served) -> None:
    database = served.database
    for part in range(3):
        names = [f"/data/mc/run{part}/photon-{number:03d}.root" for number in range(80)]
        data_catalogue.register(database, "local", names, "root")
    data_catalogue.register(database, "CNAF", [f"root://server//cards/{n}.mac" for n in range(5)], "text", "Copied")
    # As an older server took them: some are refused now.
    old = {"_cls": "DataFile", "site": "local", "status": "Orphaned", "filetype": "evil", "created_at": clock.now()}
    database.files.insert_many([old | {"filename": name, "last_update": clock.now()} for name in EVIL])


@pytest.fixture
def site_page(browser: Browser, served: Served) -> Iterator[Page]:
    """A page of the site "local"."""
    made = logged_in(browser, served, served.site_token)
    yield from watched_page(made, served)
    made.close()


def rows(page: Page) -> Any:
    return page.locator("tbody tr")


def status_of(served: Served, name: str) -> str | None:
    found = served.database.files.find_one({"filename": name})
    return found["status"] if found else None


def test_files_are_found_as_one_types_and_the_address_says_so(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/catalogue/")
    expect(rows(page)).to_have_count(100)
    page.get_by_role("searchbox", name="Name").fill("/data/mc/run1/photon-01")
    expect(rows(page)).to_have_count(10)
    page.get_by_role("searchbox", name="Name").fill("CARDS/3")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(re.compile("name=CARDS%2F3"))
    page.get_by_role("searchbox", name="Name").fill("")
    page.get_by_label("Status").select_option("Copied")
    expect(rows(page)).to_have_count(5)
    page.get_by_label("Site").select_option("local")
    expect(page.get_by_text("No file matches.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("Copied")
    expect(page.get_by_text("No file matches.")).to_be_visible()


def test_pages_by_name_have_every_file_once(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/catalogue/?name=/data&sort=name")
    seen = page.locator("tbody th").all_inner_texts()
    for _ in range(2):
        first = seen[-1]
        page.get_by_role("link", name="Next →").click()
        expect(page.locator("tbody th").first).not_to_have_text(first)
        seen += page.locator("tbody th").all_inner_texts()
    assert seen == sorted(seen) and len(set(seen)) == len(seen) == 240
    expect(page.get_by_role("link", name="Next →")).to_have_count(0)
    page.get_by_role("link", name="⇤ First").click()
    expect(page.locator("tbody th").first).to_have_text("/data/mc/run0/photon-000.root")


def test_marked_files_change_their_status_and_no_others(editor: Page, served: Served) -> None:
    editor.goto(f"{served.url}/catalogue/?name=/data/mc/run2/photon-07")
    editor.get_by_label("Mark /data/mc/run2/photon-070.root").check()
    editor.get_by_label("Mark /data/mc/run2/photon-075.root").check()
    editor.get_by_label("New status of the marked files").select_option("Orphaned")
    editor.get_by_role("button", name="Set status").click()
    expect(editor.locator(".message")).to_have_text("2 files are Orphaned now")
    expect(editor).to_have_url(re.compile("name=/data"))
    expect(rows(editor).filter(has_text="Orphaned")).to_have_count(2)
    assert [status_of(served, f"/data/mc/run2/photon-07{n}.root") for n in (0, 5, 6)] == [
        "Orphaned",
        "Orphaned",
        "New",
    ]
    editor.get_by_role("button", name="Set status").click()
    expect(editor.locator(".message")).to_have_text("No file was marked: mark some first")


def test_marks_outlast_a_refresh_and_removal_needs_a_word(editor: Page, served: Served) -> None:
    editor.goto(f"{served.url}/catalogue/?name=/data/mc/run2/photon-06")
    editor.get_by_label("Mark all files on this page").check()
    expect(editor.locator("input[name=file]:checked")).to_have_count(10)
    editor.evaluate("refresh()")
    expect(editor.locator("input[name=file]:checked")).to_have_count(10)
    editor.get_by_label("Mark /data/mc/run2/photon-069.root").uncheck()
    editor.get_by_role("button", name="Remove…").click()
    remove = editor.get_by_role("button", name="Remove", exact=True)
    expect(remove).to_be_disabled()
    editor.get_by_label("Type remove to confirm").fill("remove")
    editor.keyboard.press("Enter")
    expect(editor.locator(".message")).to_have_text("9 files left the catalogue")
    assert served.database.files.count_documents({"filename": {"$regex": "^/data/mc/run2/photon-06"}}) == 1
    page_token = editor.locator("[name=csrf_token]").first.input_value()
    file = editor.locator("input[name=file]").first.input_value()
    reply = editor.request.post(f"{served.url}/catalogue/remove", form={"csrf_token": page_token, "file": file})
    assert reply.status == 422
    assert status_of(served, "/data/mc/run2/photon-069.root") == "New"


def test_a_reader_changes_nothing(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/catalogue/")
    expect(page.get_by_role("button", name="Set status")).to_have_count(0)
    expect(page.locator("input[type=checkbox]")).to_have_count(0)
    file = served.database.files.find_one({"filename": "/data/mc/run0/photon-001.root"})
    assert file is not None
    token = page.locator("[name=csrf_token]").first.input_value()
    form: dict[str, str | float | bool] = {
        "csrf_token": token,
        "file": str(file["_id"]),
        "status": "Orphaned",
        "confirm": "remove",
    }
    for path in ("/catalogue/status", "/catalogue/remove"):
        assert page.request.post(served.url + path, form=form).status == 403
    assert status_of(served, file["filename"]) == "New"


def test_a_site_sees_and_changes_its_own_files_only(site_page: Page, served: Served) -> None:
    site_page.goto(f"{served.url}/catalogue/?site=CNAF&filetype=text")
    expect(site_page.get_by_text("No file matches.")).to_be_visible()
    site_page.goto(f"{served.url}/catalogue/?name=/data")
    expect(rows(site_page)).to_have_count(100)
    other = served.database.files.find_one({"site": "CNAF"})
    assert other is not None
    form: dict[str, str | float | bool] = {
        "csrf_token": site_page.locator("[name=csrf_token]").first.input_value(),
        "file": str(other["_id"]),
    }
    site_page.request.post(f"{served.url}/catalogue/status", form=form | {"status": "Orphaned"})
    site_page.request.post(f"{served.url}/catalogue/remove", form=form | {"confirm": "remove"})
    assert status_of(served, other["filename"]) == "Copied"
    exported = site_page.request.get(f"{served.url}/catalogue/files.json?site=CNAF").json()
    assert {row["site"] for row in exported} == {"local"}


def test_hostile_names_are_shown_and_exported_as_text(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/catalogue/?filetype=evil")
    shown = page.locator("tbody th").all_inner_texts()
    assert {"<script>alert(1)</script>", "a␀b␛[31m", EVIL[3]} <= set(shown)
    with page.expect_download() as download:
        page.get_by_role("link", name="All as CSV").click()
    text = Path(download.value.path()).read_bytes().decode()
    cells = [row["filename"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    wanted = ["<script>alert(1)</script>", f"'{EVIL[1]}", "a␀b␛[31m", EVIL[3], "'@SUM(1)", "'\ttab", "'-1"]
    assert sorted(cells) == sorted(wanted)
    with page.expect_download() as download:
        page.get_by_role("link", name="All as JSON").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert sorted(row["filename"] for row in exported) == sorted(EVIL)
    assert download.value.suggested_filename == "files.json"


def test_an_export_has_more_than_a_page(served: Served) -> None:
    reader = ("reader", served.read_token)
    query = {"name": "/data", "status": "New", "sort": "name"}
    reply = requests.get(f"{served.url}/catalogue/files.csv", params=query, auth=reader, timeout=30)
    assert reply.headers["Content-Type"].startswith("text/csv")
    found = [row["filename"] for row in csv.DictReader(io.StringIO(reply.text, newline=""))]
    stored = served.database.files.count_documents({"filename": {"$regex": "^/data"}, "status": "New"})
    assert len(found) == stored > 100 and found == sorted(found)
    assert requests.get(f"{served.url}/catalogue/files.xls", auth=reader, timeout=30).status_code == 404


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("query", ["", "?filetype=evil", "?name=nosuch"], ids=["all", "evil", "none"])
def test_the_page_fits_and_everybody_can_use_it(
    editor: Page, served: Served, pictures: Path | None, width: int, scheme: str, query: str
) -> None:
    editor.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    editor.set_viewport_size({"width": width, "height": 900})
    editor.goto(f"{served.url}/catalogue/{query}")
    expect(editor.locator("h1")).to_have_text("Data catalogue")
    assert editor.evaluate("document.documentElement.scrollWidth") <= width
    found = [item for item in Axe().run(editor).response["violations"] if item["impact"] in ("serious", "critical")]
    assert found == []
    if pictures:
        name = query.partition("=")[2] or "all"
        editor.screenshot(path=pictures / f"catalogue-{name}-{scheme}-{width}.png")
