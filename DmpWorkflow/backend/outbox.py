"""Reports that wait on disk until the server has answered them: one folder per attempt, one file per report.

A report tells a status, or (with ``filename``) files to enter into the catalogue.

The runner delivers its own folder, and the agent delivers those whose runner is gone; ``delivery.json`` tells the
latter how. A lock sees to it that only one of them delivers a folder at a time.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

from DmpWorkflow.core.lifecycle import FINAL
from DmpWorkflow.utils.files import write_private

SAMPLE_LIMIT = 200  # samples kept; more are thinned out, so that a long outage fills no disk
DELIVERY, LOCK, SAMPLE = "delivery.json", ".lock", ".sample.json"

logger = logging.getLogger(__name__)

Report = Mapping[str, Any]


class Answer(Enum):
    """What the server says to a report."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # 409: the attempt is not current, or no longer running; its payload must stop
    REJECTED = "rejected"  # the report is wrong for good: unknown instance, invalid values
    DENIED = "denied"  # the credential is not accepted; an operator can mend that
    LATER = "later"  # no answer, or one that says to try again


SETTLED = frozenset({Answer.ACCEPTED, Answer.REFUSED, Answer.REJECTED})
Send = Callable[[Report], Answer]


@dataclass(frozen=True)
class Delivery:
    """How to reach the server in the name of an attempt."""

    server_url: str
    token: str = field(repr=False)
    ca_file: str | None = None


@dataclass(frozen=True)
class Delivered:
    """What a delivery did: reports settled and left, and whether the last one settled was refused."""

    sent: int = 0
    left: int = 0
    refused: bool = False


class Outbox:
    """The kept reports of one attempt."""

    def __init__(self, folder: Path, delivery: Delivery) -> None:
        self.folder = folder
        self.delivery = delivery

    @classmethod
    def of_attempt(cls, root: Path, job_id: str, instance: int, attempt: int, delivery: Delivery) -> "Outbox":
        """Return the outbox of an attempt, and make its folder if it has none and the disk has room."""
        box = cls(root / f"{job_id}-{instance}-{attempt}", delivery)
        try:
            box._prepare()
        except OSError as error:
            logger.error("cannot make an outbox: %s", error)  # who runs can still tell the server itself
        return box

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.folder / DELIVERY).exists():
            write_private(self.folder / DELIVERY, json.dumps(dataclasses.asdict(self.delivery)).encode())

    def keep(self, report: Report) -> None:
        """Write ``report`` down; it needs ``sequence`` and ``runner``.

        The runner is part of the file's name: a second runner of the attempt must not overwrite what the first left.
        """
        is_sample = report.get("major_status") == "Running" and report.get("minor_status") is None
        ending = SAMPLE if is_sample else ".json"
        path = self.folder / f"{report['sequence']:08d}-{report['runner']}{ending}"
        content = json.dumps(dict(report)).encode()
        self._prepare()
        try:
            write_private(path, content)
        except FileNotFoundError:  # the agent discarded the empty folder at this very moment
            self._prepare()
            write_private(path, content)
        if is_sample:
            self._thin_out()

    def _thin_out(self) -> None:
        samples = [path for path in self.kept() if path.name.endswith(SAMPLE)]
        if len(samples) > SAMPLE_LIMIT:
            for path in samples[1::2]:
                path.unlink(missing_ok=True)

    def kept(self) -> list[Path]:
        """Return the files of the reports that wait, in the order in which to send them."""
        return sorted(self.folder.glob("[0-9]*.json"))

    def deliver(self, send: Send) -> Delivered:
        """Send what waits, in order, up to the first report that has to wait longer.

        The folder goes once a final report is settled, as nothing follows that. Does nothing while somebody else
        delivers this folder.
        """
        with self._lock() as locked:
            if not locked:
                return Delivered(left=len(self.kept()))
            return self._deliver(send)

    def _deliver(self, send: Send) -> Delivered:
        sent, refused, ended = 0, False, False
        while waiting := self.kept():
            report = _read(waiting[0])
            if report is None:
                continue
            if (answer := send(report)) not in SETTLED:
                return Delivered(sent, len(waiting), refused)
            waiting[0].unlink(missing_ok=True)
            sent, refused = sent + 1, answer is Answer.REFUSED
            ended = report.get("major_status") in FINAL
        if ended:
            self._remove()
        return Delivered(sent, 0, refused)

    def discard(self) -> bool:
        """Remove the folder of an attempt that is over, unless reports wait in it; say whether it is gone."""
        with self._lock() as locked:
            if locked and not self.kept():
                self._remove()
        return not self.folder.exists()

    def _remove(self) -> None:
        for name in (DELIVERY, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:
            if self.kept():  # a report came in between
                self._prepare()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the folder's lock; yields False, without waiting, if somebody else does or the folder is gone.

        A file and not the folder itself, because NFS locks only what is open for writing.
        """
        try:
            file = _open_lock(self.folder / LOCK)
        except FileNotFoundError:
            yield False
            return
        with file:
            yield _try_lock(file, self.folder / LOCK)
        with contextlib.suppress(OSError):  # NFS keeps a removed file that is open: now it is closed
            if not (self.folder / DELIVERY).exists():
                self.folder.rmdir()


def _open_lock(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _try_lock(file: IO[bytes], path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())  # else it was removed before we had it
    except (BlockingIOError, FileNotFoundError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Return the report, or None if it is gone or unreadable; the latter is put aside, to block no other."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        report = None
    if isinstance(report, dict):
        return report
    logger.error("put aside an unreadable report: %s", path)
    path.rename(path.with_suffix(".unreadable"))
    return None


def _delivery(content: Any) -> Delivery:
    """Return what was written; payloads can write there as well, so it may be anything."""
    found = Delivery(**content)
    if not (isinstance(found.server_url, str) and isinstance(found.token, str) and found.token.isascii()):
        raise TypeError(f"{DELIVERY} is not ours")
    if not isinstance(found.ca_file, str | None):
        raise TypeError(f"{DELIVERY} is not ours")
    return found


def outboxes(root: Path) -> Iterator[Outbox]:
    """Yield the outbox of each attempt below ``root``, for the agent; those that cannot be delivered are logged."""
    for path in sorted(root.glob(f"*/{DELIVERY}")):
        try:
            yield Outbox(path.parent, _delivery(json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            continue  # delivered meanwhile
        except (OSError, ValueError, TypeError, RecursionError) as error:
            logger.error("cannot deliver %s: %s", path.parent, error)
