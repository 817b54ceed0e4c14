"""Takes pictures of all pages on made-up data, light and dark, as on a desktop and on a phone."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import FloatRect, Page, ViewportSize, expect, sync_playwright

from DmpWorkflow.core.database import clock, credentials
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.utils.errors import ConfigurationError, DmpWorkflowError
from scripts.demo_data import Wanted, fill
from scripts.demo_plan import SITES
from scripts.demo_shown import what_to_show
from scripts.server_process import served

PICTURES = Path(__file__).parents[1] / "docs" / "screenshots"
DATABASE = "demo"
INSTANCES = 20_000
TALLEST = 2200  # pixels of a picture
COLOURS = 128  # of a picture's palette, where ImageMagick is there to make it small
DEVICES = {"desktop": ViewportSize(width=1440, height=900), "phone": ViewportSize(width=390, height=844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
OVERVIEW = "overview"
# Names of pictures, and addresses of pages.
PAGES = {
    OVERVIEW: "/",
    "jobs": "/jobs/",
    "job": "/jobs/{job}",
    "job-failed": "/jobs/{job}?status=Failed",
    "instance": "/jobs/{job}/{number}",
    "sites": "/sites/",
    "site": "/sites/{site}",
    "catalogue": "/catalogue/",
    "submit": "/submit/",
    "administration": "/admin/",
    "audit": "/admin/audit",
}
LOGIN = "login"  # taken on the way in, each time


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/screenshots", description=__doc__)
    parser.add_argument("--folder", type=Path, default=PICTURES, help="(default: docs/screenshots)")
    parser.add_argument("--only", action="append", choices=[LOGIN, *PAGES], help="this page; may be repeated")
    options = parser.parse_args()
    try:
        taken = take_all(options.folder, options.only or [LOGIN, *PAGES])
    except DmpWorkflowError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(taken)} pictures in {options.folder}, {sum(path.stat().st_size for path in taken) / 1e6:.1f} MB")
    return 0


def take_all(folder: Path, names: Sequence[str]) -> list[Path]:
    """Take pictures of these pages and return their files; the overview is the README's picture as well."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigurationError("chromium is missing: apt install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[Path] = []
    with _demonstration() as (url, token, words), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for scheme in SCHEMES:
            for device, size in DEVICES.items():
                page = browser.new_page(color_scheme=scheme, viewport=size, timezone_id="Europe/Rome")
                camera = Camera(page, url, folder, f"{scheme}-{device}", size)
                taken += camera.tour(token, {name: PAGES[name].format(**words) for name in names if name != LOGIN})
                page.close()
    for path in taken:
        _make_small(path)
    if OVERVIEW in names and folder == PICTURES:
        shutil.copyfile(folder / f"{OVERVIEW}-light-desktop.png", PICTURES.parent / "dashboard.png")
    return taken


@contextmanager
def _demonstration() -> Iterator[tuple[str, str, dict[str, str | int]]]:
    """Run a server on demonstration data; gives its address, a token, and the words of addresses."""
    with tempfile.TemporaryDirectory() as name, EmbeddedMongod(Path(name) / "mongodb") as mongod:
        fill(Wanted(mongod.uri, DATABASE, instances=INSTANCES), clock.now())
        database = Database(mongod.uri, DATABASE)
        sites = [site.name for site in SITES]
        try:
            token = credentials.create(database, "operator", "admin")[0]
            with served(mongod.uri, DATABASE, Path(name), sites) as (url, _):
                yield url, token, what_to_show(database).words
        finally:
            database.close()


@dataclass(frozen=True)
class Camera:
    """A page of a browser at one width and in one scheme; ``suffix`` says which, in the names of pictures."""

    page: Page
    url: str
    folder: Path
    suffix: str
    size: ViewportSize

    def tour(self, token: str, addresses: Mapping[str, str]) -> list[Path]:
        """Take pictures of the way in and of these pages, by their names."""
        taken = [self._take(LOGIN, "/login")]
        self.page.get_by_label("Or a token").fill(token)
        self.page.get_by_role("button", name="Log in with the token").click()
        expect(self.page.get_by_role("button", name="Log out")).to_be_visible()
        return taken + [self._take(name, address) for name, address in addresses.items()]

    def _take(self, name: str, address: str) -> Path:
        reply = self.page.goto(self.url + address)
        assert reply is not None and reply.ok, f"{address}: {reply and reply.status}"
        self.page.wait_for_load_state("networkidle")  # charts are drawn after the page
        path = self.folder / f"{name}-{self.suffix}.png"
        height = min(int(self.page.evaluate("document.documentElement.scrollHeight")), TALLEST)
        clip = FloatRect(x=0, y=0, width=self.size["width"], height=height)
        self.page.screenshot(path=path, full_page=True, clip=clip)
        return path


def _make_small(path: Path) -> None:
    """Give a picture a palette, if ImageMagick is there."""
    convert = shutil.which("convert")
    if convert is None:
        return
    small = path.with_suffix(".small")
    done = subprocess.run(
        [convert, path, "-strip", "+dither", "-colors", str(COLOURS), f"PNG8:{small}"], stderr=subprocess.DEVNULL
    )
    if done.returncode == 0:
        small.replace(path)


if __name__ == "__main__":
    sys.exit(main())
