"""The queue of the local backend: a folder of job files that move from ``queued`` to ``running`` to ``finished``.

A running job's file names its slot. The lock of a slot is held by its worker, and inherited by the job, so that it
is free only when both are gone: a slot is never used twice, whoever was killed.
"""

import fcntl
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.utils.files import write_private

Record = dict[str, Any]

STATES = ("queued", "running", "finished")
KEEP_FINISHED = 10_000  # records of how jobs ended
LOCK_SECONDS = 2.0  # others hold a lock for a moment, to see whether it is free
RUNNING = re.compile(r"(?P<id>.+)@slot-(?P<slot>\d+)")


class Spool:
    """The files of one queue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folders."""
        for state in STATES:
            (self.folder / state).mkdir(parents=True, exist_ok=True, mode=0o700)

    def records(self, state: str) -> Iterator[tuple[str, Record]]:
        """Yield file name (less its suffix) and content of the jobs in a state, the oldest name first."""
        for path in sorted((self.folder / state).glob("*.json")):
            if record := read(path):
                yield path.stem, record

    def knows(self, batch_id: str) -> bool:
        """Say whether there is, or was, a job with this id."""
        if any(self._path(state, batch_id).exists() for state in ("queued", "finished")):
            return True
        return bool(list((self.folder / "running").glob(f"{batch_id}@slot-*.json")))

    def queue(self, batch_id: str, record: Record) -> None:
        """Add a job."""
        write_private(self._path("queued", batch_id), json.dumps(record).encode())

    def take(self, batch_id: str, slot: int) -> bool:
        """Move a queued job to a slot; False if somebody else was faster."""
        try:
            self._path("queued", batch_id).rename(self._path("running", f"{batch_id}@slot-{slot}"))
        except FileNotFoundError:
            return False
        return True

    def note(self, batch_id: str, slot: int, record: Record) -> None:
        """Write more of a running job."""
        write_private(self._path("running", f"{batch_id}@slot-{slot}"), json.dumps(record).encode())

    def finish(self, batch_id: str, slot: int, record: Record) -> None:
        """Write how a job ended; the record is there before the job is gone from ``running``."""
        write_private(self._path("finished", batch_id), json.dumps(record).encode())
        self._path("running", f"{batch_id}@slot-{slot}").unlink(missing_ok=True)
        self._forget_oldest()

    def withdraw(self, batch_id: str) -> bool:
        """Take a job out of the queue; False if it is not there."""
        record = read(self._path("queued", batch_id))
        withdrawn = self.folder / "finished" / f".{batch_id}.withdrawn"
        try:
            self._path("queued", batch_id).rename(withdrawn)
        except FileNotFoundError:
            return False
        write_private(self._path("finished", batch_id), json.dumps((record or {}) | {"cancelled": True}).encode())
        withdrawn.unlink()
        return True

    def is_free(self, slot: int) -> bool:
        """Say whether neither a worker nor a job holds the slot."""
        path = self.folder / f"slot-{slot}.lock"
        if not path.exists():
            return True
        with path.open("ab") as file:
            return _try_lock(file)

    def lock(self, slot: int) -> IO[bytes] | None:
        """Return the slot's lock, held until it is closed by all who inherit it; None if the slot is in use."""
        file = (self.folder / f"slot-{slot}.lock").open("ab")
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(file):
            if time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.05)
        return file

    def _path(self, state: str, stem: str) -> Path:
        return self.folder / state / f"{stem}.json"

    def _forget_oldest(self) -> None:
        paths = list((self.folder / "finished").glob("*.json"))
        if len(paths) > KEEP_FINISHED:
            paths.sort(key=lambda path: path.stat().st_mtime)
            for path in paths[: len(paths) // 2]:
                path.unlink(missing_ok=True)


def split_running(stem: str) -> tuple[str, int]:
    """Return batch id and slot of a running job's file name."""
    match = RUNNING.fullmatch(stem)
    if match is None:
        raise ValueError(f"{stem!r} is no running job")
    return match["id"], int(match["slot"])


def read(path: Path) -> Record | None:
    """Return the content of a job file, or None if it moved on."""
    try:
        record: Record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return record


def key_of(record: Record) -> AttemptKey:
    """Return the attempt that a job belongs to."""
    return AttemptKey(record["job_id"], record["instance_id"], record["attempt"])


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
