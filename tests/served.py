"""A real server process for tests."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from DmpWorkflow.core.database import credentials
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod, free_port

START_SECONDS = 60
names = itertools.count()

CONFIGURATION = """\
[global]
installation = server
[server]
url = {url}
auth = {auth}
[database]
uri = {uri}
name = {name}
[JobDB]
batch_sites = local,TEST,CNAF
[site]
name = TEST
HPCsystem = lsf
HPCmemory = 1000.
HPCcputime = 24:00
workdir = /data/run
"""


@dataclass
class Served:
    """A server of the test's own, with a token of every role (the site's one is for "local").

    ``launch`` starts its process again, once that was ended.
    """

    url: str
    database: Database
    settings_path: Path
    launch: "Callable[[], subprocess.Popen[bytes]]"
    process: "subprocess.Popen[bytes]"
    admin_token: str = ""
    submit_token: str = ""
    read_token: str = ""
    site_token: str = ""


def serve(
    mongod: EmbeddedMongod, folder: Path, auth: str = "required", *options: str, name: str = ""
) -> Iterator[Served]:
    """Start gunicorn with these options, on a database of its own or of that name; yields it, and stops it again."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    name = name or f"served_{next(names)}"
    settings_path = folder / "server.cfg"
    settings_path.write_text(CONFIGURATION.format(url=url, uri=mongod.uri, name=name, auth=auth))
    database = Database(mongod.uri, name)
    database.prepare()
    command = ["gunicorn", "--config", "python:DmpWorkflow.frontend.serving", "--bind", f"127.0.0.1:{port}"]

    def launch() -> "subprocess.Popen[bytes]":
        with (folder / "server.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", *command, *options],
                env=os.environ | {"DAMPE_CONFIG": str(settings_path)},
                stdout=log,
                stderr=log,
            )
        wait_until_healthy(url, started, folder / "server.log")
        return started

    served = Served(url, database, settings_path, launch, launch())
    try:
        for role in ("admin", "submit", "read"):
            setattr(served, f"{role}_token", credentials.create(database, role, role)[0])
        served.site_token = credentials.create(database, "site", "site", "local")[0]
        yield served
    finally:
        served.process.terminate()
        served.process.wait(2 * START_SECONDS)  # a request that hangs is given up after half a minute
        database.client.drop_database(name)
        database.close()


def wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path, verify: str | None = None) -> None:
    """Wait until a server answers; fails if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with exit code {process.returncode}: {log.read_text()}")
        try:
            if requests.get(f"{url}/health", timeout=5, verify=verify).ok:
                return
        except (requests.ConnectionError, requests.Timeout):  # not yet, or on a busy machine
            time.sleep(0.05)
    pytest.fail(f"the server did not answer within {START_SECONDS} s: {log.read_text()}")


@pytest.fixture(scope="module")
def served(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served application, one for each module of tests."""
    yield from serve(mongod, tmp_path_factory.mktemp("served"))
