"""The README and the examples of the documentation, run as they stand."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.config.settings import HPC_SYSTEMS
from DmpWorkflow.core.database.mongod import free_port
from DmpWorkflow.core.job_xml import parse_jobs
from tests.documented import block

ROOT = Path(__file__).parents[2]
SECONDS = 180


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout's folder with the quick start running in it, as the tour expects it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    command = [
        sys.executable,
        "-m",
        "DmpWorkflow.frontend.quickstart",
        "--instances",
        "1",
        "--port",
        str(free_port()),
    ]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert any("Press Ctrl-C" in line for line in process.stdout)
        yield folder
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0


def test_the_tour(quickstart: Path) -> None:
    script = f"set -euo pipefail\n{block('README.md', 'tour')}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=quickstart, text=True, capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "Added job tour (",
        "Done 3",
        "Hello World, I am instance 1",
        "ApplicationExitCode3",
        "Rolled back 2",
    ):
        assert words in done.stdout
    assert "Done 2" in done.stdout.split("Rolled back 2")[1]


def test_the_loop_of_a_site(quickstart: Path) -> None:
    data = quickstart / "quickstart-data"
    tokens = json.loads((data / "quickstart.json").read_text())
    other = data / "loop.cfg"  # an agent beside the quick start's own
    other.write_text((data / "site.cfg").read_text().replace(f"workdir = {data}/work", f"workdir = {data}/loop"))
    environment = os.environ | {"DAMPE_CONFIG": str(other), "PATH": f"{quickstart}/.venv/bin:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", block("README.md", "loop")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as loop:  # fmt: skip
        assert loop.stdout is not None
        line = loop.stdout.readline()
        os.killpg(loop.pid, signal.SIGTERM)
    assert re.match(r"\d+ in the system, \d+ claimed, \d+ submitted", line)
    with Client(tokens["url"], tokens["admin_token"]) as client:
        assert client.health()["result"] == "ok"


def test_the_documented_job_is_valid() -> None:
    (job,), warnings = parse_jobs(block("docs/jobs.md", "job").encode())
    assert (job.name, job.priority, len(job.variables), warnings) == ("electrons", 5, 2, [])


@pytest.mark.parametrize(
    ("page", "name"),
    [("docs/site.md", "site configuration"), ("docs/server.md", "networks")]
    + [("docs/server.md", f"{name} configuration") for name in ("server", "https", "proxy")]
    + [(f"docs/batch/{system}.md", f"{system} site configuration") for system in HPC_SYSTEMS if system != "local"],
)
def test_the_documented_configurations_are_valid(page: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.cfg"
    path.write_text(block(page, name))
    assert load(path).warnings == ()


def test_every_page_that_is_named_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
