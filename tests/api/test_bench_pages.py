"""The benchmark of the pages and the pictures miss no page, and every address that they ask for is answered."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.frontend.api import statistics
from DmpWorkflow.frontend.pages import blueprint as pages
from scripts import bench_pages, screenshots
from scripts.bench_pages import CHARTS, DOWNLOADS, PAGES, REFRESH, Site
from scripts.demo_data import Wanted, fill
from scripts.demo_plan import SITES
from scripts.server_process import served

WORDS = {"job": "abc", "number": 1, "largest": "abc", "site": "BARI"}


@pytest.fixture
def routes() -> Flask:
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(statistics.blueprint)
    return app


def endpoints(app: Flask, paths: list[str]) -> set[str]:
    addresses = app.url_map.bind("localhost")
    return {str(addresses.match(path.format(**WORDS).partition("?")[0], "GET")[0]) for path in paths}


def of_all(app: Flask) -> set[str]:
    return {rule.endpoint for rule in app.url_map.iter_rules() if rule.methods and "GET" in rule.methods}


def test_the_benchmark_knows_every_page_chart_and_download(routes: Flask) -> None:
    known = endpoints(routes, [page.path for page in (*PAGES, *CHARTS, *DOWNLOADS)])
    assert of_all(routes) - known == {"pages.static"}


def test_there_is_a_picture_of_every_page(routes: Flask) -> None:
    known = endpoints(routes, list(screenshots.PAGES.values()))
    parts_of_pages = {"pages.job_failures", "pages.login"}  # the latter is taken on the way in
    assert endpoints(routes, [page.path for page in PAGES]) - known == parts_of_pages


@pytest.fixture(scope="module")
def site(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    fill(Wanted(mongod.uri, "bench_pages", jobs=20, instances=1000), clock.now(), processes=1)
    database = Database(mongod.uri, "bench_pages")
    names = [site.name for site in SITES]
    folder: Path = tmp_path_factory.mktemp("bench_pages")
    with served(mongod.uri, "bench_pages", folder, names, "scripts.uncached_wsgi:app") as (url, _):
        yield Site(url, database)
    database.client.drop_database("bench_pages")
    database.close()


@pytest.mark.parametrize("page", (*PAGES, *CHARTS, *DOWNLOADS), ids=lambda page: page.path)
def test_every_address_is_answered_and_its_queries_find_something(site: Site, page: bench_pages.Page) -> None:
    assert site.get(page.path, {})
    site.get(page.path, REFRESH)  # raises unless it is answered; a page without a live part sends nothing
    assert page.bare is None or page.bare(site.shown)


def test_pages_are_measured_and_weighed(site: Site) -> None:
    measured = bench_pages.Measured()
    bench_pages._measure_page(measured, site, site, PAGES[1], "page", {}, 1, 1000)
    bench_pages._weigh(measured, site, PAGES[0])
    assert [(time.name, time.against) for time in measured.times] == [
        ("page: jobs", "1000 instances"),
        ("page: jobs", "bare queries"),
    ]
    first, later, refresh = measured.weights.values()
    assert first > later > refresh > 0
    assert first < 300_000  # bytes
