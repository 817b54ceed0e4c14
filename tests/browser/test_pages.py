import re
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import EVIL_TITLE, LOOKS
from tests.served import Served


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("overview", "/"),
        ("jobs", "/jobs/"),
        ("job", "/jobs/{slug}"),
        ("instance", "/jobs/{slug}/9"),
        ("missing", "/jobs/nosuch"),
    ],
)
def test_every_page_fits_its_window(
    context: BrowserContext,
    served: Served,
    filled: dict[str, str],
    pictures: Path | None,
    width: int,
    scheme: str,
    name: str,
    path: str,
) -> None:
    page = context.new_page()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 900})
    reply = page.goto(served.url + path.format(slug=filled["photon-1TeV"]))
    assert reply is not None and reply.status == (404 if name == "missing" else 200)
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if pictures:
        page.screenshot(path=pictures / f"{name}-{scheme}-{width}.png")


def test_the_list_shows_exact_counts(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/")
    row = page.locator("tr", has_text="photon-1TeV")
    cells = row.locator("td.number").all_inner_texts()
    stored = [
        served.database.instances.count_documents({"status": status, "site": "local", "job": job["_id"]})
        for job in served.database.jobs.find({"title": "photon-1TeV"})
        for status in ("New", "Submitted", "Running", "Done", "Failed", "Terminated")
    ]
    assert [int(cell) for cell in cells[2:-1]] == stored


def test_instances_are_paged_and_filtered(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}")
    rows, numbers = page.locator("#live tbody tr"), page.locator("#live tbody th")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Next →").click()
    expect(numbers.first).to_have_text("51")
    for _ in range(4):
        page.get_by_role("link", name="Next →").click()
    expect(rows).to_have_count(10)
    expect(page.get_by_role("link", name="Next →")).to_have_count(0)
    page.get_by_role("navigation", name="Filter by status").get_by_role("link", name="Failed").click()
    expect(rows.first).to_contain_text("Failed")
    assert set(page.locator("#live tbody td .status").all_inner_texts()) == {"✘ Failed"}
    numbers.locator("a").first.click()
    expect(page.locator("h1")).to_contain_text("Failed")


def test_an_instance_shows_its_life(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}/1")
    expect(page.locator("h1")).to_contain_text("Instance 1")
    expect(page.locator("dl")).to_contain_text("of 86\N{NARROW NO-BREAK SPACE}400")
    expect(page.locator(".plot canvas")).to_have_count(2)
    expect(page.locator("pre.log")).to_have_text("all good\nbye")
    page.get_by_label("Search").fill("GOOD")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("pre.log mark")).to_have_text("good")
    expect(page.get_by_text("1 found")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_text() == "all good\nbye"
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}/9")
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("Attempt 1")
    page.get_by_text("Its log").click()
    expect(page.locator("details pre")).to_be_visible()


def test_hostile_names_and_logs_are_shown_and_not_run(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/")
    page.get_by_role("link", name=EVIL_TITLE).click()
    expect(page.locator("h1")).to_have_text(EVIL_TITLE)
    page.goto(f"{served.url}/jobs/{filled[EVIL_TITLE]}/1")
    expect(page.locator("pre.log")).to_contain_text("␛[31mred␀␇<b>bold</b><script>alert(1)</script>")


def test_empty_states_say_what_to_do(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['empty']}")
    expect(page.get_by_text("dampe-cli-create-new-jobInstance -n empty -t User -i 10")).to_be_visible()
    page.goto(f"{served.url}/jobs/?title=nosuch")
    expect(page.get_by_text("No job matches.")).to_be_visible()


def test_the_keyboard_reaches_the_content_first(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("To the content")


def test_a_page_leads_to_the_login_and_back(browser: Browser, served: Served, filled: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(f"{served.url}/jobs/?title=empty")
    expect(page.locator("h1")).to_have_text("Log in")
    found = Axe().run(page).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    page.get_by_label("Or a token").fill("wrong")
    page.get_by_role("button", name="Log in with the token").click()
    expect(page.get_by_role("alert")).to_contain_text("That is not known")
    page.get_by_label("Or a token").fill(served.read_token)
    page.get_by_role("button", name="Log in with the token").click()
    expect(page).to_have_url(f"{served.url}/jobs/?title=empty")
    page.close()


@pytest.mark.parametrize("path", ["/", "/jobs/", "/jobs/nosuch"])
def test_pages_are_shielded(served: Served, path: str) -> None:
    reply = requests.get(served.url + path, auth=("reader", served.read_token), timeout=30)
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "script-src 'self';" in reply.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?! defer src=)|style=|\son[a-z]+=", reply.text)


def test_a_site_sees_its_own_jobs_only(served: Served, filled: dict[str, str]) -> None:
    served.database.jobs.update_one({"title": "empty"}, {"$set": {"execution_site": "CNAF"}})
    site = ("site", served.site_token)
    assert "empty" not in requests.get(f"{served.url}/jobs/", auth=site, timeout=30).text
    assert requests.get(f"{served.url}/jobs/{filled['empty']}", auth=site, timeout=30).status_code == 403
    served.database.jobs.update_one({"title": "empty"}, {"$set": {"execution_site": "local"}})
