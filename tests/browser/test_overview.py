"""The first page and the sites: the operator's question, answered by what is stored."""

import json
import uuid
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from DmpWorkflow.core.database import clock, heartbeats
from tests.browser.conftest import LOOKS
from tests.served import Served


@pytest.fixture
def agent(served: Served, filled: dict[str, str]) -> str:
    """An agent of the site "local", which complains."""
    name = f"ui-{uuid.uuid4().hex[:6]}"
    beat = {"agent": name, "hostname": "ui01.example.org", "version": "3.0.0", "problem": "squeue: no answer"}
    served.database.agents.delete_many({})
    heartbeats.agent_beat(served.database, beat, "local", [])
    return name


def test_the_first_page_says_what_is_sick_and_why(page: Page, served: Served, agent: str) -> None:
    page.goto(served.url)
    tile = page.locator("a.tile", has_text="local")
    # what others asked for is shared for some seconds
    expect(tile).to_contain_text("its agent complains: squeue: no answer", timeout=30_000)
    expect(tile).to_contain_text("sick")
    running = served.database.instances.count_documents({"status": "Running"})
    expect(page.locator(".figures .tile").first).to_contain_text(str(running))
    failures = page.get_by_role("region", name="Most frequent failures")
    expect(failures).to_contain_text("ApplicationComplete")
    expect(page.locator(".plot canvas")).to_have_count(2)
    tile.click()
    expect(page.locator("h1")).to_have_text("local")
    expect(page.get_by_role("region", name="Agents")).to_contain_text(agent)
    expect(page.get_by_role("region", name="Hosts").locator("tbody tr")).to_have_count(7)
    page.get_by_role("link", name="Week").click()
    expect(page).to_have_url(f"{served.url}/sites/local?span=week")


def test_a_silent_site_turns_red_without_a_reload(page: Page, served: Served, agent: str) -> None:
    served.database.agents.update_many({}, {"$set": {"problem": None}})
    page.goto(f"{served.url}/sites/")
    tile = page.locator("a.tile", has_text="local")
    expect(tile).not_to_contain_text("silent")
    served.database.agents.update_many({}, {"$set": {"last_beat": clock.now() - timedelta(hours=5)}})
    # it refreshes every five seconds, and answers are shared for some
    expect(tile).to_contain_text("its agent is silent for 5 hours", timeout=60_000)


def test_a_site_that_is_not_known_is_no_page(page: Page, served: Served) -> None:
    reply = page.request.get(f"{served.url}/sites/nosuch")
    assert reply.status == 404 and "there is no site nosuch" in reply.text()


def test_times_are_those_of_the_viewer_with_utc_on_hover(page: Page, served: Served, agent: str) -> None:
    page.goto(f"{served.url}/sites/local")
    shown = page.get_by_role("region", name="Agents").locator("time")
    stored = (served.database.agents.find_one({"agent": agent}) or {})["last_beat"]
    expect(shown).to_have_attribute("title", f"{stored:%Y-%m-%d %H:%M} UTC")
    local = page.evaluate(
        "text => new Date(text).toLocaleString('sv-SE', {timeZone: 'Europe/Rome'}).slice(0, 16)", stored.isoformat()
    )
    expect(shown).to_have_text(local)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_everybody_can_use_the_pages(
    editor: Page, served: Served, agent: str, filled: dict[str, str], scheme: str, width: int
) -> None:
    """No serious finding of axe-core."""
    editor.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    editor.set_viewport_size({"width": width, "height": 900})
    slug = filled["photon-1TeV"]
    for path in ("/", "/sites/", "/sites/local", "/jobs/", f"/jobs/{slug}", f"/jobs/{slug}/9"):
        editor.goto(served.url + path)
        editor.wait_for_load_state("networkidle")
        found = [
            item for item in Axe().run(editor).response["violations"] if item["impact"] in ("serious", "critical")
        ]
        told = json.dumps(
            [{"id": item["id"], "nodes": [node["html"][:200] for node in item["nodes"][:3]]} for item in found]
        )
        assert not found, f"{path}: {told}"
