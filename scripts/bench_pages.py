"""Times of the pages and of their live refreshes, with few and with many instances, and their weights.

Every request pays for its own queries: answers that readers share for some seconds are switched off.
"""

import html
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import requests
from rich.console import Console

from DmpWorkflow.core.database import activity, clock, credentials
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from scripts.demo_data import Wanted, fill
from scripts.demo_plan import SITES
from scripts.demo_shown import Shown, what_to_show
from scripts.server_process import served

FEW, MANY = 10_000, 1_000_000
FEW_QUICKLY, MANY_QUICKLY = 1_000, 20_000
REPEATS, REPEATS_QUICKLY = 15, 3
WARM_UP = 2  # requests before any is counted: each server process loads and compiles its templates once
BROWSER = {"Accept-Encoding": "gzip, deflate, br, zstd", "Accept": "text/html"}
REFRESH = {"HX-Request": "true"}
ASSET = re.compile(r'(?:href|src)="([^"]*/static/[^"]+\.(?:css|js)[^"]*)"')
CHART = re.compile(r'data-source="([^"]+)"')


@dataclass(frozen=True)
class Page:
    """A page: its name, its address, and the queries that it cannot do without, where they are simple."""

    name: str
    path: str
    bare: Callable[[Shown], object] | None = None


def _bare_jobs(shown: Shown) -> object:
    fields = {"body": 0, "creations": 0}
    newest = shown.database.jobs.find({"archived": False}, fields, sort=[("created_at", -1), ("_id", -1)], limit=51)
    ids = [job["_id"] for job in newest]
    return list(shown.database.counts.find({"job": {"$in": ids}}))


def _bare_job(shown: Shown) -> object:
    job = shown.database.jobs.find_one({"slug": shown.job})
    shown.database.distributions.find_one({"_id": shown.job_id})
    list(shown.database.counts.find({"job": shown.job_id}))
    return job, list(shown.database.instances.find({"job": shown.job_id}, sort=[("instanceId", 1)], limit=51))


def _bare_instance(shown: Shown) -> object:
    job = shown.database.jobs.find_one({"slug": shown.job})
    return job, shown.database.instances.find_one({"job": shown.job_id, "instanceId": shown.number})


def _bare_files(shown: Shown) -> object:
    return list(shown.database.files.find({}, sort=[("created_at", -1), ("_id", -1)], limit=101))


def _bare_work(shown: Shown) -> object:
    since = clock.now() - activity.DAY
    return list(shown.database.snapshots.find({"_id": {"$gte": since}}, sort=[("_id", 1)]))


def _bare_ends(shown: Shown) -> object:
    scopes = [activity.of_site(site.name) for site in SITES]
    since = clock.now() - 31 * activity.DAY
    return list(shown.database.activity.find({"scope": {"$in": scopes}, "time": {"$gte": since}}))


PAGES = (
    Page("overview", "/"),
    Page("jobs", "/jobs/", _bare_jobs),
    Page("jobs, searched and sorted", "/jobs/?text=proton&sort=progress"),
    Page("job", "/jobs/{job}", _bare_job),
    Page("job, failed ones", "/jobs/{job}?status=Failed"),
    Page("job, the largest", "/jobs/{largest}"),
    Page("job, the largest, by CPU time", "/jobs/{largest}?sort=cpu_peak"),
    Page("failures of a job", "/jobs/{job}/failures"),
    Page("failures of the largest job", "/jobs/{largest}/failures"),
    Page("instance", "/jobs/{job}/{number}", _bare_instance),
    Page("sites", "/sites/"),
    Page("site", "/sites/{site}"),
    Page("data catalogue", "/catalogue/", _bare_files),
    Page("administration", "/admin/"),
    Page("audit log", "/admin/audit"),
    Page("submit", "/submit/"),
    Page("login", "/login"),
)
DOWNLOADS = (
    Page("definition of a job", "/jobs/{job}/job.xml"),
    Page("log of an instance", "/jobs/{job}/{number}/log"),
    Page("20,000 files", "/catalogue/files.csv"),
)
CHARTS = (
    Page("work, day", "/statistics/work/?span=day", _bare_work),
    Page("work, month", "/statistics/work/?span=month"),
    Page("ends, month", "/statistics/ends/?span=month", _bare_ends),
    Page("failures", "/statistics/failures/"),
    Page("sites", "/statistics/sites/"),
    Page("hosts", "/statistics/hosts/?site={site}"),
    Page("agents", "/statistics/agents/"),
    Page("beats, month", "/statistics/beats/?site={site}&span=month"),
    Page("progress of a job", "/statistics/jobs/{job}/progress/"),
    Page("ends of a job", "/statistics/jobs/{job}/ends/?span=week"),
    Page("CPU time of a job", "/statistics/jobs/{job}/distribution/cpu/"),
    Page("failures of a job", "/statistics/jobs/{job}/failures/last_line/"),
    Page("CPU time of an instance", "/statistics/jobs/{job}/instances/{number}/cpu/"),
)


@dataclass(frozen=True)
class Time:
    """A median in seconds, beside another one."""

    name: str
    seconds: float
    other: float
    against: str


@dataclass
class Measured:
    """What was measured; weights are in bytes."""

    times: list[Time] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)


class Site:
    """A served database, as a browser of somebody who is logged in sees it."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.shown = what_to_show(database)
        self.session = requests.Session()
        token = credentials.create(database, "bench", "admin")[0]
        self.session.headers.update(BROWSER | {"Authorization": f"Bearer {token}"})

    def get(self, path: str, headers: dict[str, str]) -> bytes:
        """Return what is sent for an address, as it is sent; every status but 200 is an error."""
        address = self.url + path.format(**self.shown.words)
        reply = self.session.get(address, headers=headers, stream=True, timeout=60, allow_redirects=False)
        sent: bytes = reply.raw.read(decode_content=False)
        assert reply.status_code == 200, f"{address}: {reply.status_code} {sent[:200]!r}"
        return sent

    def text(self, path: str) -> str:
        """Return a page as text."""
        return self.get(path, {"Accept-Encoding": "identity"}).decode()


def measure(quick: bool) -> Measured:
    """Fill two databases and measure all pages on both, in turns."""
    sizes = (FEW_QUICKLY, MANY_QUICKLY) if quick else (FEW, MANY)
    repeats = REPEATS_QUICKLY if quick else REPEATS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mongod = stack.enter_context(EmbeddedMongod(folder / "mongodb"))
        few, many = [_serve(stack, mongod, folder, size) for size in sizes]
        measured = Measured()
        for page in PAGES:
            _measure_page(measured, few, many, page, "page", {}, repeats, sizes[0])
            _measure_page(measured, few, many, page, "refresh", REFRESH, repeats, sizes[0])
            _weigh(measured, many, page)
        for kind, table in (("chart", CHARTS), ("download", DOWNLOADS)):
            for page in table:
                _measure_page(measured, few, many, page, kind, {}, repeats, sizes[0])
    return measured


def _serve(stack: ExitStack, mongod: EmbeddedMongod, folder: Path, instances: int) -> Site:
    name = f"pages_{instances}"
    begin = time.perf_counter()
    fill(Wanted(mongod.uri, name, instances=instances), clock.now())
    Console(stderr=True).print(f"{instances} instances in {time.perf_counter() - begin:.0f} s")
    database = Database(mongod.uri, name)
    stack.callback(database.close)
    sites = [site.name for site in SITES]
    url, _ = stack.enter_context(served(mongod.uri, name, folder, sites, "scripts.uncached_wsgi:app"))
    return Site(url, database)


def _measure_page(
    measured: Measured, few: Site, many: Site, page: Page, kind: str, headers: dict[str, str], repeats: int, size: int
) -> None:
    """Measure a page on both in turns, so that both suffer alike from what else the machine does."""
    times: dict[Site, list[float]] = {few: [], many: []}
    bare: list[float] = []
    for number in range(WARM_UP + repeats):
        for site, found in times.items():
            took = _timed(lambda site=site: site.get(page.path, headers))  # type: ignore[misc]
            if number >= WARM_UP:
                found.append(took)
        if page.bare and not headers:
            bare.append(_timed(lambda: page.bare and page.bare(many.shown)))
    small, large = (statistics.median(times[site]) for site in (few, many))
    name = f"{kind}: {page.name}"
    measured.times.append(Time(name, large, small, f"{size} instances"))
    if bare:
        measured.times.append(Time(name, large, statistics.median(bare), "bare queries"))
    Console(stderr=True).print(f"{name}: {large * 1000:.1f} ms, {large / small:.2f} x {size} instances")


def _weigh(measured: Measured, site: Site, page: Page) -> None:
    """Weigh what a browser fetches: with an empty cache, with scripts and styles kept, and to refresh."""
    text = site.text(page.path)
    charts = sum(len(site.get(html.unescape(path), {})) for path in dict.fromkeys(CHART.findall(text)))
    assets = sum(len(site.get(html.unescape(path), {})) for path in dict.fromkeys(ASSET.findall(text)))
    sent = len(site.get(page.path, {})) + charts
    measured.weights[f"weight, first load: {page.name}"] = sent + assets
    measured.weights[f"weight, later load: {page.name}"] = sent
    measured.weights[f"weight, refresh: {page.name}"] = len(site.get(page.path, REFRESH))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
