"""A mongod process of our own, as a one-member replica set: for the quick start and for tests."""

import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from DmpWorkflow.utils.errors import ConfigurationError, Unavailable

REPLICA_SET = "dampe"
START_SECONDS = 60
STOP_SECONDS = 30
NOT_STARTED = 127  # the loader's exit code, if a library is missing
ALREADY_INITIALIZED = 23  # MongoDB's error code


def find_mongod(configured: Path | None = None) -> Path:
    """Return the mongod to run: the configured one, else one on PATH, else the one of the extra `embedded`."""
    if configured:
        if not configured.is_file():
            raise ConfigurationError(f"there is no mongod at {configured}")
        return configured
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(folder) / "db" / "bin" / "mongod"
        if candidate.is_file():
            return candidate
    raise ConfigurationError("no mongod found: install one, or run pip install 'DmpWorkflow[embedded]'")


def free_port() -> int:
    """Return a TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedMongod:
    """A running mongod with its data in ``folder``; a context manager that stops it again.

    It listens on 127.0.0.1 only. A second start with the same folder finds its data, on whatever port.
    """

    def __init__(self, folder: Path, port: int | None = None, binary: Path | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.binary = find_mongod(binary)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The address for clients; direct, since the set's member list may still name an earlier port."""
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it takes writes; raises Unavailable with the log's place if not."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
            [
                str(self.binary),
                "--dbpath", str(data),
                "--port", str(self.port),
                "--bind_ip", "127.0.0.1",
                "--replSet", REPLICA_SET,
                "--wiredTigerCacheSizeGB", "0.25",
                "--logpath", str(self.log),
                "--logappend",
                "--unixSocketPrefix", str(self.folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for its owner, who stops it in order
        )  # fmt: skip
        try:
            self._wait_until_writable()
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> Path:
        return self.folder / "mongod.log"

    def stop(self) -> None:
        """Stop the process and wait for its end."""
        if self.process is None:
            return
        with self.process:  # closes the pipe
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _wait_until_writable(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with MongoClient[dict[str, object]](self.uri, serverSelectionTimeoutMS=500) as client:
            while time.monotonic() < deadline:
                if self.process is not None and self.process.poll() is not None:
                    raise Unavailable(self._why_it_ended(self.process))
                try:
                    self._join_replica_set(client)
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return
                except PyMongoError:
                    pass  # not up yet
                time.sleep(0.05)
        raise Unavailable(f"mongod did not become writable within {START_SECONDS} s; see {self.log}")

    def _why_it_ended(self, process: "subprocess.Popen[bytes]") -> str:
        said = (process.communicate()[1] or b"").decode(errors="replace").strip().splitlines()
        if process.returncode == NOT_STARTED and said:
            return f"{self.binary} cannot run on this machine: {said[-1]}"
        return f"mongod ended with exit code {process.returncode}; see {self.log}"

    def _join_replica_set(self, client: "MongoClient[dict[str, object]]") -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        config = {"_id": REPLICA_SET, "members": [member]}
        try:
            client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != ALREADY_INITIALIZED:
                raise
            self._move_to_port(client, member)

    def _move_to_port(self, client: "MongoClient[dict[str, object]]", member: dict[str, object]) -> None:
        """Name this port in the stored member list: a set that does not find itself elects no primary."""
        stored = client.admin.command("replSetGetConfig")["config"]
        if stored["members"][0]["host"] == member["host"]:
            return
        stored["members"][0]["host"] = member["host"]
        stored["version"] += 1
        client.admin.command("replSetReconfig", stored, force=True)
