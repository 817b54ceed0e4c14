"""A server process on a database, for scripts that measure it or look at its pages."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from DmpWorkflow.client import Client
from DmpWorkflow.core.database.mongod import free_port
from DmpWorkflow.utils.errors import Unavailable
from DmpWorkflow.utils.files import write_private

START_SECONDS = 60
CONFIGURATION = """\
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


@contextmanager
def served(
    uri: str, name: str, folder: Path, sites: Sequence[str], app: str = "DmpWorkflow.frontend.wsgi:app"
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run the server on the database ``name``; its configuration and its log are in ``folder``."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = CONFIGURATION.format(url=url, uri=uri, name=name, sites=",".join(sites))
    write_private(folder / f"{name}.cfg", settings.encode())
    command = ["-m", "gunicorn", "--config", "python:DmpWorkflow.frontend.serving", "--bind", f"127.0.0.1:{port}"]
    with (folder / f"{name}.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command, app],
            env=os.environ | {"DAMPE_CONFIG": str(folder / f"{name}.cfg")},
            stdout=log,
            stderr=log,
        )
    try:
        _wait(url)
        yield url, server
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            Client(url).health()
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
