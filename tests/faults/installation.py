"""The whole installation: a replica set, two servers behind a proxy, and the agents of three sites."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.backend.local_spool import STATES, key_of
from DmpWorkflow.backend.local_worker import BATCH_ID_VARIABLE
from DmpWorkflow.backend.work_files import outbox_folder
from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.core.database import credentials
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import free_port
from DmpWorkflow.core.lifecycle import FINAL
from DmpWorkflow.utils.errors import Unavailable
from DmpWorkflow.utils.files import write_private
from tests.faults.ledger import Attempt
from tests.faults.parts import Part
from tests.faults.proxy import Proxy
from tests.faults.replica_set import ReplicaSet
from tests.faults.work import SITES

SECONDS = 90.0
DATABASE = "faults"
PEOPLE = "people"
AGENTS = (("north", "a"), ("north", "b"), ("south", "a"), ("east", "a"))  # two compete for the work of one site
SMALL = "south"  # the site whose disk is small
SMALL_MB = 24
MOVED_CLOCK = Path(__file__).with_name("moved_clock")
SERVER = """\
[global]
installation = server
[server]
url = {url}
[database]
uri = {uri}
name = {name}
[JobDB]
batch_sites = {sites}
"""
SITE = """\
[global]
installation = client
[server]
url = {url}
token = {token}
[JobDB]
batch_sites = {site}
[site]
name = {site}
agent = {agent}
HPCsystem = local
slots = 2
HPCgrace = 00:00:05
workdir = {folder}/work
EXEC_DIR_ROOT = {folder}/run
DAMPE_SW_DIR = {folder}
[watchdog]
interval = 3
"""


def moved_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process, and of what it starts, whose clock is wrong; only the wall clock moves."""
    return {"PYTHONPATH": str(MOVED_CLOCK), "DWF_MOVED_CLOCK": str(seconds)}


@dataclass(frozen=True)
class Wrapper:
    """A payload runner that is at work."""

    process: psutil.Process
    attempt: Attempt


class Agent(Part):
    """An agent of a site, which runs payloads on this machine."""

    def __init__(self, site: str, name: str, folder: Path, config: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "DmpWorkflow.frontend.cli",
            "site",
            "fetch",
            "--loop",
            "1",
            "-c",
            "6",
            "-m",
            "6",
        ]
        super().__init__(f"{site}-{name}", [*command, "--config", str(config)], config.with_suffix(".log"))
        self.site = site
        self.folder = folder
        self.settings = load(config).settings
        self.backend = LocalBackend.from_settings(self.settings)
        for part in ("work", "run"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def wrappers(self) -> list[Wrapper]:
        """Return the runners that are at work here."""
        return list(self._find("DmpWorkflow.backend.runner"))

    def payloads(self) -> list[psutil.Process]:
        """Return the payloads that are at work here, less what they started themselves."""
        return [payload for wrapper in self.wrappers() for payload in _children(wrapper.process, deep=False)]

    def workers(self) -> list[psutil.Process]:
        """Return the workers of the local backend."""
        return [process for process in _processes("DmpWorkflow.backend.local_worker", self.folder)]

    def _find(self, module: str) -> Iterator[Wrapper]:
        for process in _processes(module, self.folder):
            with suppress(psutil.Error):
                key = AttemptKey.from_name(process.environ().get(BATCH_ID_VARIABLE, ""))
                if key:
                    yield Wrapper(process, (key.job_id, key.instance_id, key.attempt))

    def crash(self) -> list[Attempt]:
        """Kill all that runs here, as when the machine loses power; return the attempts that did."""
        self.kill()
        for worker in self.workers():
            _kill(worker)
        running = self.wrappers()
        for wrapper in running:
            for process in [wrapper.process, *_children(wrapper.process)]:
                _kill(process)
        return [wrapper.attempt for wrapper in running]

    def taken(self) -> set[Attempt]:
        """Return the attempts that came to this agent's batch system."""
        keys = {key_of(record) for state in STATES for _, record in self.backend.spool.records(state)}
        return {(key.job_id, key.instance_id, key.attempt) for key in keys}

    def kept(self) -> list[Path]:
        """Return the reports that wait in outboxes, and those that could not be read."""
        folder = outbox_folder(self.settings)
        return [path for path in folder.glob("*/*") if path.name.startswith("0")]

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of all output: the agent's, its workers' and its payloads'."""
        logs = [self.log, *self.backend.spool.folder.glob("slot-*.log"), *self.folder.glob("work/**/output.log")]
        for log in logs:
            with suppress(FileNotFoundError):
                yield str(log), log.read_text(errors="replace")


def _processes(module: str, folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if module in words and any(word.startswith(f"{folder}/") for word in words):
            yield process


def _children(process: psutil.Process, deep: bool = True) -> list[psutil.Process]:
    try:
        return process.children(recursive=deep)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


class Installation:
    """Everything, started; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path, agents: Sequence[tuple[str, str]] = AGENTS) -> None:
        self.folder = folder
        self._names = agents
        self.ledger = folder / "ledger"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        self.replicas = stack.enter_context(ReplicaSet(self.folder))
        self.database = Database(self.replicas.uri, DATABASE)
        stack.callback(self.database.close)
        self.database.prepare()
        tokens = {site: credentials.create(self.database, site, "site", site)[0] for site in SITES}
        ports = [free_port(), free_port()]
        self.proxy = stack.enter_context(Proxy([PEOPLE, *SITES], ports))
        self.servers = [self._server(number, port) for number, port in enumerate(ports)]
        for server in self.servers:
            stack.callback(server.stop)
            server.start()
        token = credentials.create(self.database, "people", "admin")[0]
        self.people = Client(self.proxy.doors[PEOPLE].url, token)
        stack.callback(self.people.close)
        wait_for(self.people)
        self.has_small_disk = stack.enter_context(small_disk(self.site_folder(SMALL)))
        self.agents = [self._agent(site, name, tokens[site]) for site, name in self._names]
        for agent in self.agents:
            stack.callback(_end, agent)
            agent.start()

    def unfinished(self) -> int:
        """Return how many instances are not final."""
        return self.database.instances.count_documents({"status": {"$nin": sorted(FINAL)}})

    def wait_for_words(self, log: Path, words: str) -> None:
        """Wait until a part has said so since it was started last."""
        deadline = time.monotonic() + SECONDS
        while words not in log.read_text().rpartition("Starting gunicorn")[2]:
            assert time.monotonic() < deadline, f"{log} does not say {words!r}"
            time.sleep(0.1)

    def site_folder(self, site: str) -> Path:
        """Return where a site has all its files."""
        return self.folder / "sites" / site

    def store(self, site: str) -> Path:
        """Return where a site keeps the files that its payloads make."""
        return self.site_folder(site) / "store"

    def _server(self, number: int, port: int) -> Part:
        config = self.folder / f"server-{number}.cfg"
        text = SERVER.format(
            url=f"http://127.0.0.1:{port}", uri=self.replicas.uri, name=DATABASE, sites=",".join(SITES)
        )
        write_private(config, text.encode())
        command = [
            sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--worker-class",
            "gthread", "--threads", "8", "--graceful-timeout", "10", "DmpWorkflow.frontend.wsgi:app",
        ]  # fmt: skip
        return Part(config.stem, command, config.with_suffix(".log"), {"DAMPE_CONFIG": str(config)})

    def _agent(self, site: str, name: str, token: str) -> Agent:
        config = self.folder / f"{site}-{name}.cfg"
        folder = self.site_folder(site) / f"{site}-{name}"
        text = SITE.format(url=self.proxy.doors[site].url, token=token, site=site, agent=name, folder=folder)
        write_private(config, text.encode())
        return Agent(site, name, folder, config)


def _end(agent: Agent) -> None:
    agent.stop()
    for wrapper in agent.wrappers():
        with suppress(psutil.NoSuchProcess):
            wrapper.process.resume()
    agent.crash()


def wait_for(client: Client) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.health()
            return
        except Unavailable:
            assert time.monotonic() < deadline, "no server answered"
            time.sleep(0.1)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Put a small disk in the place of ``folder``; yields False where this machine mounts none."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
