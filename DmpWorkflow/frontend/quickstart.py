"""The quick start: database, server and agent of this machine, and a first job that runs to its end."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.core.database import credentials, migrations
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput, NotFound, Unavailable
from DmpWorkflow.utils.files import write_private

SITE = "local"
DATABASE = "dampe"
START_SECONDS = 60
STOP_SECONDS = 20
AGENT_PAUSE = 2  # seconds between two cycles: a newcomer watches
FAILED = 1

SERVER_CONFIGURATION = """\
[global]
installation = server

[server]
url = {url}
host = 127.0.0.1
port = {port}

[database]
uri = {mongodb_uri}
name = {database}

[JobDB]
batch_sites = {site}
"""
ADMIN_CONFIGURATION = """\
[global]
installation = client

[server]
url = {url}
token = {admin_token}

[JobDB]
batch_sites = {site}

[site]
name = {site}
"""
SITE_CONFIGURATION = """\
[global]
installation = client
randomSeed = true

[server]
url = {url}
token = {site_token}

[JobDB]
batch_sites = {site}

[site]
name = {site}
HPCsystem = local
slots = {slots}
workdir = {data}/work
EXEC_DIR_ROOT = {data}/run
DAMPE_SW_DIR = {data}/software
"""


@dataclass(frozen=True)
class Addresses:
    """What scripts need to use a running quick start; stored as quickstart.json."""

    url: str
    admin_token: str
    site_token: str
    mongodb_uri: str


class Stopped(Exception):
    """The user, or the system, wants it to end."""


def main() -> int:
    """Run the quick start; returns the exit code."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    console = Console(stderr=True)
    try:
        return _run(options, console)
    except Stopped:
        console.print("Stopped.")
        return 0 if not options.once else FAILED
    except DmpWorkflowError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"quickstart: {error.filename or options.data}: {error.strerror}", file=sys.stderr)
        return FAILED


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop when the instances are Done")
    parser.add_argument("--port", type=int, default=5000, help="the server's port (default: 5000)")
    parser.add_argument("--data", type=Path, default=Path("quickstart-data"), metavar="DIR", help="where all data go")
    parser.add_argument("--instances", type=int, default=10, metavar="N", help="instances to run (default: 10)")
    return parser.parse_args()


def _run(options: argparse.Namespace, console: Console) -> int:
    data: Path = options.data.absolute()
    _check(options)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    (data / "logs").mkdir(exist_ok=True)
    with ExitStack() as stack:
        console.print(f"Starting MongoDB, its data in {data / 'mongodb'}")
        mongod = stack.enter_context(EmbeddedMongod(data / "mongodb"))
        addresses = _prepare(data, mongod.uri, f"http://127.0.0.1:{options.port}")
        _write_configurations(data, addresses, options.port)
        console.print(f"Starting the server at {addresses.url}")
        server = stack.enter_context(_process(data, "server", _server_command(options.port), "server.cfg"))
        client = Client(addresses.url, addresses.admin_token)
        _wait_for(client, server, data / "logs" / "server.log")
        console.print(f"Starting an agent for site {SITE!r}")
        stack.callback(_stop_payloads, data)
        stack.enter_context(_process(data, "agent", _agent_command(data), "site.cfg"))
        write_private(data / "quickstart.json", json.dumps(asdict(addresses), indent=2).encode() + b"\n")
        return _first_job(options, client, addresses, data, console)


def _check(options: argparse.Namespace) -> None:
    if options.instances < 1:
        raise InvalidInput("--instances: at least one is needed")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", options.port))
        except (OSError, OverflowError) as error:
            raise Unavailable(f"port {options.port} cannot be used ({error}): choose another with --port") from error


def _prepare(data: Path, uri: str, url: str) -> Addresses:
    """Return the addresses, with the tokens of an earlier start if there was one."""
    database = Database(uri, DATABASE)
    try:
        migrations.migrate(database)
        database.prepare()
        stored = data / "quickstart.json"
        if stored.exists():
            known = json.loads(stored.read_text())
            secret = credentials.secret(database)
            if all(credentials.find(database, known[name], secret) for name in ("admin_token", "site_token")):
                return Addresses(url, known["admin_token"], known["site_token"], uri)
        admin = _new_token(database, "quickstart-admin", "admin", None)
        return Addresses(url, admin, _new_token(database, "quickstart-site", "site", SITE), uri)
    finally:
        database.close()


def _new_token(database: Database, name: str, role: str, site: str | None) -> str:
    with suppress(NotFound):
        credentials.revoke(database, name)  # its text is lost with quickstart.json
    return credentials.create(database, name, role, site)[0]


def _write_configurations(data: Path, addresses: Addresses, port: int) -> None:
    values = asdict(addresses) | {"port": port, "site": SITE, "database": DATABASE, "data": data}
    values["slots"] = os.cpu_count() or 1
    for folder in ("work", "run", "software"):
        (data / folder).mkdir(exist_ok=True)
    templates = {"server": SERVER_CONFIGURATION, "site": SITE_CONFIGURATION, "admin": ADMIN_CONFIGURATION}
    for name, template in templates.items():
        write_private(data / f"{name}.cfg", template.format(**values).encode())


def _server_command(port: int) -> list[str]:
    return [
        "-m", "gunicorn", "--config", "python:DmpWorkflow.frontend.serving",
        "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5",
    ]  # fmt: skip


def _agent_command(data: Path) -> list[str]:
    return [
        "-m", "DmpWorkflow.frontend.cli", "site", "fetch",
        "--config", str(data / "site.cfg"), "--loop", str(AGENT_PAUSE),
    ]  # fmt: skip


@contextmanager
def _process(data: Path, name: str, arguments: list[str], configuration: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program with its output in a log; stop it at the end."""
    environment = os.environ | {"DAMPE_CONFIG": str(data / configuration)}
    with (data / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
            [sys.executable, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours: we stop it in order
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(client: Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Unavailable(f"the server ended with exit code {server.returncode}; see {log}")
        try:
            client.health()
            return
        except Unavailable:
            time.sleep(0.1)
    raise Unavailable(f"the server did not answer within {START_SECONDS} s; see {log}")


def _stop_payloads(data: Path) -> None:
    """End what still runs: payloads outlive their agent, but not a quick start."""
    LocalBackend.from_settings(load(data / "site.cfg").settings).stop(STOP_SECONDS)


def _first_job(
    options: argparse.Namespace, client: Client, addresses: Addresses, data: Path, console: Console
) -> int:
    example = Path(__file__).parents[2] / "examples" / "helloWorld.xml"
    job = client.create_job(example.read_bytes(), site=SITE, instances=options.instances)["jobs"][0]
    failed = _watch(client, job["slug"], job["first"], job["last"], console)
    print(f"{options.instances - failed} of {options.instances} instances are Done.")
    print(f"Dashboard:  {addresses.url}/jobs/{job['slug']}")
    print(f"Log in:     with the admin_token in {data / 'quickstart.json'}")
    if options.once:
        return FAILED if failed else 0
    command = Path(sys.executable).parent / "dampe-cli-new-job"
    print(f"Next job:   {command} --config {data / 'admin.cfg'} my_job.xml --Ninstances 5")
    print("Press Ctrl-C to stop.", flush=True)
    signal.pause()
    return 0


def _watch(client: Client, slug: str, first: int, last: int, console: Console) -> int:
    """Show progress until all of these instances are over; return how many of them did not succeed."""
    total = last - first + 1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("helloWorld", total=total)
        while True:
            statuses = [row["status"] for row in client.instances(slug, after=first - 1, most=total)]
            over = [status for status in statuses if status in FINAL]
            progress.update(task, completed=len(over))
            if len(over) == total:
                return sum(status != MajorStatus.DONE for status in over)
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
