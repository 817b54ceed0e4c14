"""Chromium, driven against a served process with realistic data."""

import os
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from DmpWorkflow.core.database import claims, creation, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.reporting import apply_reports
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from tests.needs import need
from tests.served import Served

expect.set_options(timeout=20_000)  # ms; a machine that is busy with other tests may take its time
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOOKS = [(320, "light"), (1440, "dark")]  # width and scheme: each once, since one has nothing to do with the other
XML = """<Jobs><Job name="photon" type="User" release="6.0.1">
<InputFiles><File source="${ROOT}/in_${DWF_SIXDIGIT}.root" target="in.root" file_type="root"/></InputFiles>
<OutputFiles><File source="out.root" target="${ROOT}/out_${DWF_SIXDIGIT}.root" file_type="root"/></OutputFiles>
<MetaData><Var name="ENERGY" value="1TeV"/><Var name="ROOT" value="/data/${ENERGY}"/></MetaData>
<JobWrapper executable="/bin/bash"><![CDATA[
# simulate
for event in $(seq 1 1000); do echo "event $event at $ENERGY"; done
]]></JobWrapper></Job></Jobs>"""
EVIL_TITLE = "<script>alert(1)</script>"
EVIL_LOG = "\x1b[31mred\x00\x07<b>bold</b><script>alert(1)</script>\nlast line"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    need("chromium", package="chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def filled(served: Served) -> dict[str, str]:
    """Jobs in every state of progress; returns slugs by title."""
    database = served.database
    for title, number in (("photon-1TeV", 260), ("electron-reco", 40), ("empty", 0), (EVIL_TITLE, 3)):
        job = jobs.submit(database, jobs.NewJob(title, "User", "local", XML, release="6.0.1"))
        creation.create_instances(database, job["_id"], number)
    _run_some(database)
    return {job["title"]: job["slug"] for job in database.jobs.find()}


def _run_some(database: Database) -> None:
    claimed = claims.claim(database, claims.ClaimRequest("local", "agent", "request1", 250, timedelta(hours=1)))
    ends = [MajorStatus.DONE] * 8 + [MajorStatus.FAILED, MajorStatus.TERMINATED]
    evil = next(iter(database.jobs.find({"title": EVIL_TITLE})))["_id"]
    steps: list[StatusReport] = []
    for position, instance in enumerate(claimed):
        key = (instance["job"], instance["instanceId"])
        start = {
            "hostname": f"wn{position % 7:03d}.example.org",
            "minor_status": "ExecutingApplication",
            "batchId": "172831",
        }
        limits = {"cpu_max": 86400, "mem_max": 4000}
        steps.append(StatusReport(*key, Report(MajorStatus.RUNNING, 1, 1), start | limits))
        for sequence in range(2, 9):
            sample = {"cpu": 300.0 * sequence, "memory": 900.0 + 130 * (sequence % 4)}
            steps.append(StatusReport(*key, Report(MajorStatus.RUNNING, 1, sequence), sample))
        if position < 200:
            end = {"minor_status": "ApplicationComplete", "log": "all good\nbye"}
            steps.append(StatusReport(*key, Report(ends[position % 10], 1, 9), end))
    apply_reports(database, steps)
    roll_back(database, claimed[8]["job"], [claimed[8]["instanceId"]])
    creation.create_instances(database, evil, 1)
    again = claims.claim(database, claims.ClaimRequest("local", "agent", "request2", 1000, timedelta(hours=1)))
    logs = [StatusReport(evil, item["instanceId"], Report(MajorStatus.FAILED, 1, 1), {"log": EVIL_LOG})
            for item in again if item["job"] == evil]  # fmt: skip
    apply_reports(database, logs)


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """The browser of a reader."""
    made = logged_in(browser, served, served.read_token)
    yield made
    made.close()


def logged_in(browser: Browser, served: Served, token: str) -> BrowserContext:
    """Return a browser without history in which somebody has logged in."""
    made = browser.new_context(timezone_id="Europe/Rome")
    page = made.new_page()
    page.goto(f"{served.url}/login")
    page.get_by_label("Or a token").fill(token)
    page.get_by_role("button", name="Log in with the token").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.close()
    return made


@pytest.fixture
def editor(browser: Browser, served: Served) -> Iterator[Page]:
    """A page of somebody who may submit."""
    made = logged_in(browser, served, served.submit_token)
    yield from watched_page(made, served)
    made.close()


@pytest.fixture
def admin(browser: Browser, served: Served) -> Iterator[Page]:
    """A page of an administrator."""
    made = logged_in(browser, served, served.admin_token)
    yield from watched_page(made, served)
    made.close()


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    """A page of a reader."""
    yield from watched_page(context, served)


def _is_trouble(message: ConsoleMessage) -> bool:
    """Say whether a page complains.

    That the server refuses what a test sends on purpose is none of that, nor what htmx says of a request that gives
    way to a newer one.
    """
    expected = r"status of (403|409|422)|^htmx:(afterRequest|sendAbort)\b"
    return message.type == "error" and not re.search(expected, message.text)


def watched_page(context: BrowserContext, served: Served) -> Iterator[Page]:
    """A page on which requests to other addresses, console errors and dialogs of the browser fail the test."""
    troubles: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda message: troubles.append(message.text) if _is_trouble(message) else None)
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("request", lambda sent: None if sent.url.startswith(served.url) else troubles.append(sent.url))
    opened.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}"))
    yield opened
    assert troubles == []


@pytest.fixture(scope="session")
def pictures() -> Path | None:
    """Where to put pictures of the pages, if somebody wants to look at them."""
    folder = os.environ.get("DAMPE_PICTURES")
    return Path(folder) if folder else None
