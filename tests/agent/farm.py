"""A site for tests: its configuration, its agent, and a ledger that every payload signs."""

import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from DmpWorkflow.backend import agent
from DmpWorkflow.backend.cycle import CycleResult, Limits
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from tests.served import Served

SECONDS = 120.0
LONGEST_PAUSE = 0.5
ROOT = Path(__file__).parents[2]
CONFIGURATION = """\
[global]
installation = client
[server]
url = {url}
token = {token}
patience = 3
[JobDB]
batch_sites = {site}
[site]
name = {site}
{batch}
HPCgrace = 00:00
workdir = {folder}/work
EXEC_DIR_ROOT = {folder}/run
DAMPE_SW_DIR = {folder}
"""
XML = """<Jobs><Job name="{name}" type="User"><MetaData>{variables}</MetaData>
<JobWrapper executable="/bin/bash"><![CDATA[
echo "$DWF_INSTANCE_ID $DWF_JOB_ID $DWF_LOCAL_ID" >> {ledger}
{script}
]]></JobWrapper></Job></Jobs>"""


class Site:
    """A site with its batch system (as lines of [site]; by default the local backend), and its agent."""

    def __init__(
        self,
        served: Served,
        folder: Path,
        batch: str = "HPCsystem = local\nslots = 4",
        site: str = "local",
        token: str = "",
        python: str = "",
    ) -> None:
        self.python = python  # of the worker nodes, if it is not ours
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ledger = folder / "ledger"
        self.config = folder / "site.cfg"
        self.config.write_text(
            CONFIGURATION.format(
                url=served.url, token=token or served.site_token, folder=folder, batch=batch, site=site
            )
        )
        self.settings = load(self.config).settings
        self.backend = make_backend(self.settings.site.hpc_system, self.settings)
        self.client = Client(
            self.settings.server.url, self.settings.server.token, patience=self.settings.server.patience
        )
        self.people = Client(served.url, served.submit_token)

    def close(self) -> None:
        """Stop everything."""
        if isinstance(self.backend, LocalBackend):
            self.backend.stop(10)
        elif jobs := self.backend.query():
            self.backend.cancel(list(jobs.values()))
            self.wait(lambda: not self.backend.query())
        self.client.close()
        self.people.close()

    def submit(self, number: int, script: str = "", site: str = "local", **variables: str) -> dict[str, Any]:
        """Make a job whose payloads sign the ledger."""
        items = "".join(f'<Var name="{name}" value="{value}"/>' for name, value in variables.items())
        text = XML.format(name=f"job-{uuid.uuid4().hex[:8]}", ledger=self.ledger, script=script, variables=items)
        made: dict[str, Any] = self.people.create_job(text.encode(), site=site, instances=number)["jobs"][0]
        return made

    @property
    def local(self) -> LocalBackend:
        """The backend, where it is the local one."""
        assert isinstance(self.backend, LocalBackend)
        return self.backend

    def cycle(self, chunk: int = 100, in_system: int | None = None, pending: int | None = None) -> CycleResult:
        """Run one cycle of the agent."""
        return agent.run_cycle(
            self.settings, self.client, self.backend, Limits(chunk, in_system, pending), self.python
        )

    def crash(self, point: str, when: str, number: int) -> bool:
        """Run a cycle that kills itself; False if it never came to that point."""
        return self.start_agent(point, when, number).wait(SECONDS) < 0

    def start_agent(self, point: str = "nowhere", when: str = "", number: int = 0) -> "subprocess.Popen[bytes]":
        """Start a cycle as a process of its own; by default it does not kill itself."""
        command = [self.python or sys.executable, "-m", "tests.agent.crashing_agent", str(self.config), point, when]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen([*command, str(number), self.python], cwd=self.folder, env=environment)

    def counts(self, job: dict[str, Any]) -> dict[str, int]:
        """Return the statuses that a job's instances have."""
        found: dict[str, int] = self.people.job(job["slug"])["counts"]
        return {status: count for status, count in found.items() if count}

    def wait(self, until: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait for something that other processes do, and leave them the processor meanwhile."""
        deadline = time.monotonic() + seconds
        pause = 0.05
        while not until():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE)

    def run_all(self, job: dict[str, Any]) -> None:
        """Run cycles until all instances of a job are Done."""
        total = sum(self.counts(job).values())

        def done() -> bool:
            self.cycle()
            return self.counts(job) == {"Done": total}

        self.wait(done)

    def runs(self) -> Counter[str]:
        """Return how often each instance's payload ran."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return Counter(line.split()[0] for line in lines)


def children_of_nobody(folder: Path) -> list[str]:
    """Return processes that still work in this folder."""
    mine = os.getpid()
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline", "pid"])
        if process.info["pid"] != mine and any(str(folder) in word for word in process.info["cmdline"] or [])
    ]
