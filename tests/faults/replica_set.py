"""A replica set of three mongod processes that elects a new primary within a second or two."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from DmpWorkflow.core.database.mongod import find_mongod, free_port
from tests.faults.parts import Part

NAME = "faults"
MEMBERS = 3
SECONDS = 60.0
SETTINGS = {"heartbeatIntervalMillis": 500, "catchUpTimeoutMillis": 2000}


class ReplicaSet:
    """The members, each with its data in a folder of its own; a context manager.

    A primary that is left alone for ``election_ms`` gives up.
    """

    def __init__(self, folder: Path, election_ms: int = 1500) -> None:
        self._settings = SETTINGS | {"electionTimeoutMillis": election_ms}
        self.ports = [free_port() for _ in range(MEMBERS)]
        self.members = [_member(folder / f"mongod-{number}", port) for number, port in enumerate(self.ports)]

    @property
    def uri(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"mongodb://{hosts}/?replicaSet={NAME}"

    def __enter__(self) -> Self:
        for member in self.members:
            member.start()
        try:
            self._initiate()
            self.wait_for_primary()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all members, at once: their data are of no more use."""
        for member in self.members:
            member.kill()

    def _initiate(self) -> None:
        members = [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(self.ports)]
        config = {"_id": NAME, "members": members, "settings": self._settings}
        deadline = time.monotonic() + SECONDS
        while self._ask(0, "replSetInitiate", config) is None:
            assert time.monotonic() < deadline, f"no mongod started: see {self.members[0].log}"
            time.sleep(0.1)

    def primary(self) -> Part | None:
        """Return the member that takes writes now, if there is one."""
        for number, member in enumerate(self.members):
            if member.is_up and (self._ask(number, "hello") or {}).get("isWritablePrimary"):
                return member
        return None

    def wait_for_primary(self) -> Part:
        """Return the member that takes writes, once there is one."""
        deadline = time.monotonic() + SECONDS
        while (found := self.primary()) is None:
            assert time.monotonic() < deadline, "no member became primary"
            time.sleep(0.05)
        return found

    def step_down(self) -> bool:
        """Make the primary step aside for some seconds; False if there was none, or it had no fit successor."""
        primary = self.primary()
        command = {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 2}
        return primary is not None and self._run(self.members.index(primary), command) is not None

    def _ask(self, number: int, command: str, value: Any = 1) -> dict[str, Any] | None:
        return self._run(number, {command: value})

    def _run(self, number: int, command: dict[str, Any]) -> dict[str, Any] | None:
        address = f"mongodb://127.0.0.1:{self.ports[number]}/?directConnection=true"
        patience: dict[str, Any] = {"serverSelectionTimeoutMS": 1000, "socketTimeoutMS": 5000}
        with MongoClient[dict[str, Any]](address, **patience) as client:
            try:
                return client.admin.command(command)
            except PyMongoError:
                return None


def _member(folder: Path, port: int) -> Part:
    (folder / "data").mkdir(parents=True)
    command = [
        str(find_mongod()),
        "--dbpath", str(folder / "data"),
        "--port", str(port),
        "--bind_ip", "127.0.0.1",
        "--replSet", NAME,
        "--wiredTigerCacheSizeGB", "0.25",
        "--oplogSize", "64",
        "--unixSocketPrefix", str(folder),
    ]  # fmt: skip
    return Part(folder.name, command, folder / "mongod.log")
