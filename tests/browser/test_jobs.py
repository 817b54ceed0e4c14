"""The list of jobs, a job and an instance: what is found on them, and each action with its effect in the database."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from DmpWorkflow.core.database import creation, jobs
from tests.browser.conftest import XML, logged_in, watched_page
from tests.served import Served


@pytest.fixture
def job(served: Served, filled: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A job of this test's own, with 30 New instances."""
    database = served.database
    made = jobs.submit(database, jobs.NewJob("to-change", "User", "local", XML, owner="submit"))
    creation.create_instances(database, made["_id"], 30)
    yield made
    for collection in (database.instances, database.counts):
        collection.delete_many({"job": made["_id"]})
    database.jobs.delete_one({"_id": made["_id"]})


def statuses(served: Served, job: dict[str, Any]) -> dict[str, int]:
    found = served.database.instances.aggregate(
        [{"$match": {"job": job["_id"]}}, {"$group": {"_id": "$status", "number": {"$sum": 1}}}]
    )
    return {one["_id"]: one["number"] for one in found}


def rows(page: Page) -> Any:
    return page.locator("#live tbody tr")


def test_jobs_are_found_as_one_types_and_the_address_can_be_sent(
    page: Page, browser: Browser, served: Served, filled: dict[str, str], job: dict[str, Any]
) -> None:
    page.goto(f"{served.url}/jobs/")
    expect(rows(page)).to_have_count(5)
    page.get_by_label("Search").press_sequentially("PHOT")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{served.url}/jobs/?text=PHOT")
    page.get_by_label("Search").fill("")
    page.get_by_label("With instances").select_option("Failed")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Owner").fill("submit")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    page.get_by_label("With instances").select_option("")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{served.url}/jobs/?owner=submit")
    other = next(watched_page(logged_in(browser, served, served.read_token), served))
    other.goto(page.url)
    expect(rows(other)).to_have_count(1)
    expect(other.get_by_label("Owner")).to_have_value("submit")
    other.context.close()


def test_jobs_are_sorted_by_a_column(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/")
    page.get_by_role("link", name="All", exact=True).click()
    expect(rows(page).first).to_contain_text("photon-1TeV")
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("All")
    page.get_by_role("link", name="All", exact=False).first.click()
    expect(rows(page).first).to_contain_text("empty")


def test_a_job_is_explained(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}")
    reasons = page.get_by_role("region", name="Failures by reason")
    expect(reasons.locator("tbody tr").first).to_contain_text("ApplicationComplete")
    number = served.database.instances.count_documents(
        {"status": {"$in": ["Failed", "Terminated"]}, "hostname": {"$exists": True}, "last_line": "bye"}
    )
    expect(page.get_by_role("region", name="Failures by last line").locator("tbody tr")).to_contain_text(str(number))
    expect(page.locator(".plot canvas")).to_have_count(4)
    expect(page.get_by_role("region", name="Variables")).to_contain_text("/data/1TeV")
    expect(page.locator("pre.code .k").first).to_have_text("for")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the XML").click()
    assert download.value.path().read_text() == XML


def test_instances_are_filtered_sorted_and_exported(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}")
    page.get_by_role("textbox", name="Host").fill("wn003.example.org")
    page.get_by_label("Above number").fill("100")
    page.get_by_label("up to").fill("160")
    wanted = [
        found["instanceId"]
        for found in served.database.instances.find({"hostname": "wn003.example.org"}, sort=[("instanceId", 1)])
        if 100 < found["instanceId"] <= 160
    ]
    expect(rows(page)).to_have_count(len(wanted))
    assert [int(text) for text in page.locator("#live tbody th").all_inner_texts()] == wanted
    page.get_by_role("link", name="Number").click()
    expect(page.locator("#live tbody th").first).to_have_text(str(wanted[-1]))
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert [int(line.split(",")[1]) for line in lines[1:]] == wanted


def test_the_log_can_be_searched_by_its_words(page: Page, served: Served, filled: dict[str, str]) -> None:
    page.goto(f"{served.url}/jobs/{filled['photon-1TeV']}?status=Done")
    page.get_by_label("In the log").fill("no such words")
    expect(page.get_by_text("No instance matches.")).to_be_visible()
    page.get_by_label("In the log").fill("all good")
    expect(rows(page)).to_have_count(50)


def test_a_search_wins_over_a_refresh_that_is_under_way(page: Page, served: Served, filled: dict[str, str]) -> None:
    """Or the older answer would come later, and stay: each refresh asks for what was shown before."""
    address = f"{served.url}/jobs/{filled['photon-1TeV']}?status=Done"
    page.clock.install()
    page.goto(address)
    expect(rows(page)).to_have_count(50)
    page.route(address, lambda _: None)  # it is not answered
    with page.expect_request(address):
        page.clock.fast_forward(6000)
    with page.expect_event("requestfailed") as given_up:
        page.get_by_label("In the log").fill("no such words")
        page.clock.fast_forward(400)
    assert given_up.value.url == address
    expect(page.get_by_text("No instance matches.")).to_be_visible()
    with page.expect_request(lambda request: "text=no" in request.url):
        page.clock.fast_forward(6000)


def test_what_is_on_the_screen_refreshes(page: Page, served: Served, job: dict[str, Any]) -> None:
    page.clock.install()
    page.goto(f"{served.url}/jobs/{job['slug']}")
    expect(rows(page)).to_have_count(30)
    creation.create_instances(served.database, job["_id"], 3)
    page.clock.fast_forward(6000)
    expect(rows(page)).to_have_count(33, timeout=30_000)  # the answer to an earlier refresh is shared for a moment


def test_a_hidden_page_asks_nothing(page: Page, served: Served, job: dict[str, Any]) -> None:
    page.clock.install()
    page.goto(f"{served.url}/jobs/{job['slug']}")
    expect(page.locator(".plot[data-source]").first).to_be_attached()
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.clock.fast_forward(300_000)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    assert asked == []
    with page.expect_request(lambda sent: "HX-Request" in sent.headers or "hx-request" in sent.headers):
        page.clock.fast_forward(6000)


def test_instances_are_added(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("button", name="Add instances…").click()
    editor.get_by_label("How many").fill("5")
    editor.locator("dialog[open]").get_by_label("Variables").fill("SEED=7\nNAME=a b")
    editor.get_by_role("button", name="Add", exact=True).click()
    expect(editor.get_by_role("status")).to_have_text("Added instances 31 to 35.")
    assert statuses(served, job) == {"New": 35}
    made = served.database.instances.find_one({"job": job["_id"], "instanceId": 35}) or {}
    assert '"SEED"' in made["body"] and '"a b"' in made["body"]


def test_what_matches_is_killed_and_rolled_back(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("button", name="Kill…").click()
    editor.locator("dialog[open]").get_by_label("these numbers:", exact=False).check()
    editor.locator("dialog[open]").get_by_label("Numbers", exact=True).fill("1-10, 15")
    editor.get_by_role("button", name="Kill", exact=True).click()
    expect(editor.get_by_role("status")).to_contain_text("Ended 11 waiting instances")
    assert statuses(served, job) == {"New": 19, "Terminated": 11}
    editor.goto(f"{served.url}/jobs/{job['slug']}?status=Terminated&n_max=5")
    editor.get_by_role("button", name="Roll back…").click()
    expect(editor.locator("dialog[open]")).to_contain_text("all that match: Terminated, 5")
    editor.get_by_role("button", name="Roll back", exact=True).click()
    expect(editor.get_by_role("status")).to_contain_text("Rolled back 5 instances")
    assert statuses(served, job) == {"New": 24, "Terminated": 6}


def test_numbers_that_are_none_are_refused_whole(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("button", name="Kill…").click()
    editor.locator("dialog[open]").get_by_label("these numbers:", exact=False).check()
    editor.locator("dialog[open]").get_by_label("Numbers", exact=True).fill("1, x")
    with editor.expect_response(lambda reply: reply.status == 422):
        editor.get_by_role("button", name="Kill", exact=True).click()
    expect(editor.locator("main")).to_contain_text("'x' is no number")
    assert statuses(served, job) == {"New": 30}


def test_priority_tags_and_archive(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("button", name="Priority, tags, retries…").click()
    editor.get_by_role("spinbutton", name="Priority").fill("7")
    editor.get_by_role("textbox", name="Tags").fill("mc paper-2026")
    editor.get_by_role("spinbutton", name="Retries").fill("2")
    editor.get_by_role("textbox", name="after (site").fill("site, lost")
    editor.get_by_role("button", name="Save").click()
    expect(editor.locator("h1 .tag").first).to_have_text("mc")
    stored = served.database.jobs.find_one({"_id": job["_id"]}) or {}
    assert (stored["priority"], stored["tags"]) == (7, ["mc", "paper-2026"])
    assert (stored["retries"], stored["retry_on"]) == (2, ["site", "lost"])
    assert served.database.instances.distinct("priority", {"job": job["_id"]}) == [7]
    editor.get_by_role("button", name="Pause").click()
    expect(editor.locator("main")).to_contain_text("Paused: by")
    assert served.database.instances.count_documents({"job": job["_id"], "claimable": True}) == 0
    editor.get_by_role("button", name="Resume").click()
    expect(editor.get_by_role("button", name="Pause")).to_be_visible()
    served.database.instances.delete_many({"job": job["_id"]})
    served.database.counts.update_many({"job": job["_id"]}, {"$set": {"status": {}}})
    editor.get_by_role("button", name="Archive").click()
    expect(editor.get_by_role("button", name="Bring back")).to_be_visible()
    editor.goto(f"{served.url}/jobs/?text=to-change")
    expect(editor.get_by_text("No job matches.")).to_be_visible()
    editor.get_by_label("Archived").select_option("yes")
    expect(rows(editor)).to_have_count(1)


def test_a_job_is_removed_once_its_name_is_typed(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("button", name="Remove…").click()
    button = editor.get_by_role("button", name="Remove for ever")
    expect(button).to_be_disabled()
    editor.locator("dialog[open]").get_by_label("to confirm", exact=False).fill("to-chang")
    expect(button).to_be_disabled()
    editor.locator("dialog[open]").get_by_label("to confirm", exact=False).fill("to-change")
    button.click()
    expect(editor.get_by_role("status")).to_have_text("Removed job to-change.")
    assert not served.database.jobs.find_one({"_id": job["_id"]})
    assert statuses(served, job) == {}


def test_a_job_is_cloned(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    editor.get_by_role("link", name="Clone").click()
    expect(editor).to_have_url(re.compile(rf"/submit/\?clone={job['slug']}"))
    expect(editor.locator("textarea").first).to_have_value(re.compile("to-change-copy|<Job"))


def test_an_instance_is_rolled_back_with_other_variables_and_killed(
    editor: Page, served: Served, job: dict[str, Any]
) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}/3")
    editor.get_by_role("button", name="Kill…").click()
    editor.get_by_role("button", name="Kill", exact=True).click()
    expect(editor.get_by_role("status")).to_have_text("It has ended.")
    expect(editor.locator("h1")).to_contain_text("Terminated")
    editor.get_by_role("button", name="Roll back…").click()
    editor.locator("dialog[open]").get_by_label("Variables").fill("ENERGY=2TeV")
    editor.get_by_role("button", name="Roll back", exact=True).click()
    expect(editor.get_by_role("status")).to_contain_text("Rolled back instance 3")
    expect(editor.get_by_role("region", name="Variables")).to_contain_text("/data/2TeV")
    assert statuses(served, job) == {"New": 30}


def test_two_windows_see_what_either_does(editor: Page, page: Page, served: Served, job: dict[str, Any]) -> None:
    page.clock.install()
    page.goto(f"{served.url}/jobs/{job['slug']}/4")
    expect(page.locator("h1")).to_contain_text("New")
    editor.goto(f"{served.url}/jobs/{job['slug']}/4")
    editor.get_by_role("button", name="Kill…").click()
    editor.get_by_role("button", name="Kill", exact=True).click()
    expect(editor.locator("h1")).to_contain_text("Terminated")
    page.clock.fast_forward(6000)
    expect(page.locator("h1")).to_contain_text("Terminated", timeout=30_000)


def test_a_dialog_works_with_the_keyboard_alone(editor: Page, served: Served, job: dict[str, Any]) -> None:
    editor.goto(f"{served.url}/jobs/{job['slug']}")
    for _ in range(40):
        editor.keyboard.press("Tab")
        if editor.locator(":focus").inner_text() == "Add instances…":
            break
    editor.keyboard.press("Enter")
    expect(editor.locator("dialog[open]")).to_be_visible()
    editor.keyboard.press("Escape")
    expect(editor.locator("dialog[open]")).to_have_count(0)
    editor.keyboard.press("Enter")
    expect(editor.get_by_label("How many")).to_be_focused()
    editor.keyboard.press("ControlOrMeta+a")
    editor.keyboard.type("2")
    editor.keyboard.press("Enter")
    expect(editor.get_by_role("status")).to_have_text("Added instances 31 to 32.")


CHANGES = [
    ("instances", {"number": "1"}), ("rollback", {"which": "filter"}), ("kill", {"which": "filter"}),
    ("change", {"priority": "3"}), ("archive", {"archived": "1"}), ("remove", {"confirm": "to-change"}),
    ("3/rollback", {}), ("3/kill", {}),
]  # fmt: skip


@pytest.mark.parametrize(("action", "form"), CHANGES)
def test_a_reader_changes_nothing(served: Served, job: dict[str, Any], action: str, form: dict[str, str]) -> None:
    reader = requests.Session()
    reader.auth = ("reader", served.read_token)
    login = reader.get(f"{served.url}/login", timeout=30).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', login)
    assert token
    before = served.database.jobs.find_one({"_id": job["_id"]})
    path = f"{served.url}/jobs/{job['slug']}/{action}"
    forged = reader.post(path, data=form, timeout=30)
    assert (forged.status_code, "too old" in forged.text) == (403, True)
    refused = reader.post(path, data=form | {"csrf_token": token[1]}, timeout=30)
    assert (refused.status_code, "role read may not" in refused.text) == (403, True)
    assert served.database.jobs.find_one({"_id": job["_id"]}) == before
    assert statuses(served, job) == {"New": 30}


def test_a_reader_is_offered_no_change(page: Page, served: Served, job: dict[str, Any]) -> None:
    for path in (f"/jobs/{job['slug']}", f"/jobs/{job['slug']}/1"):
        page.goto(served.url + path)
        expect(page.get_by_role("button")).to_have_text(["Log out"])
        expect(page.get_by_role("link", name="Submit")).to_have_count(0)
