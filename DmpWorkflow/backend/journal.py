"""What an agent must not forget: who it is, which claim is open, and which attempts it holds."""

import fcntl
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.utils.errors import ConfigurationError, Conflict, Unavailable
from DmpWorkflow.utils.files import write_private
from DmpWorkflow.utils.text import one_line

JOURNAL, CLAIM = "journal.json", "claim.json"
LOST_KEPT = 24 * 3600  # seconds


@dataclass(slots=True)
class Held:
    """An attempt that is in the batch system, or was.

    It is suspended since ``held_since`` (None: it is not) for ``reason``; ``missing`` counts the queries that did not
    find it, since ``missing_since``; ``killed`` when a person wants its end, ``over`` when the server knows its end.
    Times are Unix times.
    """

    key: AttemptKey
    batch_id: str
    held_since: float | None = None
    reason: str = ""
    missing: int = 0
    missing_since: float | None = None
    killed: bool = False
    over: bool = False

    def row(self) -> list[object]:
        """Return what the journal keeps, up to the last that there is to tell: of most no more than two values."""
        told = [self.held_since, self.reason, self.missing, self.missing_since, self.killed, self.over]
        while told and not told[-1]:
            told.pop()
        return [self.key.instance_id, self.batch_id, *told]


@dataclass
class OpenClaim:
    """A claim that may have reached the server, and whose instances may not all be submitted."""

    request_id: str
    limit: int


@dataclass
class Journal:
    """The content of an agent's folder; ``save`` after each change that a crash must not lose.

    ``folders`` has by job where its instances write, their work folders by their numbers. ``lost`` has attempts that
    were given up, and when: should the batch system remember them after all, they may still run.
    """

    folder: Path
    agent: str
    claim: OpenClaim | None = None
    held: dict[AttemptKey, Held] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    lost: dict[AttemptKey, float] = field(default_factory=dict)
    _saved: str = ""

    def open_claim(self, limit: int) -> OpenClaim:
        """Note the intent to claim, before the server is asked; in a file of its own, as the other may be large."""
        self.claim = OpenClaim(uuid.uuid4().hex, limit)
        self._write(CLAIM, json.dumps(asdict(self.claim)))
        return self.claim

    def close_claim(self) -> None:
        """Note that all of the claim is done with."""
        self.claim = None
        try:
            (self.folder / CLAIM).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def save(self) -> None:
        """Write what is held, whole or not at all."""
        groups: dict[tuple[str, int], list[list[object]]] = {}
        for (job, _, attempt), held in self.held.items():
            groups.setdefault((job, attempt), []).append(held.row())
        folders = {job: self.folders[job] for job, _ in groups if job in self.folders}
        held_rows = [[*key, rows] for key, rows in groups.items()]
        lost = [[*key, since] for key, since in self.lost.items()]
        content = json.dumps({"folders": folders, "held": held_rows, "lost": lost})
        if content != self._saved:
            self._write(JOURNAL, content)
            self._saved = content

    def may_start(self, key: AttemptKey) -> bool:
        """Say whether an attempt is in the batch system, or could be there again."""
        return key in self.held or key in self.lost

    def forget_lost(self) -> None:
        """Forget what was given up long ago."""
        self.lost = {key: since for key, since in self.lost.items() if time.time() - since < LOST_KEPT}

    def _write(self, name: str, content: str) -> None:
        try:
            write_private(self.folder / name, content.encode())
        except OSError as error:
            raise _unusable(self.folder, error) from error


def agent_folder(workdir: Path, site: str, agent: str = "") -> Path:
    """Return where an agent keeps what it must not forget; ``agent`` is its name if its site has several."""
    return workdir / ".agent" / (f"{site}@{agent}" if agent else site)


@contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """Open the journal in ``folder`` for one cycle; raises Conflict while another agent has it open."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another agent is at work in {folder}: this cycle is left to it") from None
        yield _read(folder)


def _unusable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the journal in {folder} cannot be written: {error.strerror}: check [site] workdir")


def _read(folder: Path) -> Journal:
    journal = Journal(folder, _identity(folder / "identity"))
    for name, fill in ((CLAIM, _fill_claim), (JOURNAL, _fill)):
        path = folder / name
        try:
            if path.exists():
                fill(journal, path.read_text())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigurationError(
                f"journal {path} cannot be read ({one_line(error)[:100]}): move it away; what is in the queue is "
                "found again by its name, and an open claim returns to the server with its lease"
            ) from error
    return journal


def _fill_claim(journal: Journal, text: str) -> None:
    journal.claim = OpenClaim(**json.loads(text))


def _fill(journal: Journal, text: str) -> None:
    journal._saved, content = text, json.loads(text)
    journal.folders = {str(job): str(folder) for job, folder in content["folders"].items()}
    for job, attempt, rows in content["held"]:
        _check(job, [attempt])
        _check(job, [row[0] for row in rows])
        for number, *values in rows:
            key = AttemptKey(job, number, attempt)
            journal.held[key] = Held(key, *values)
    for job, number, attempt, since in content["lost"]:
        _check(job, [number, attempt])
        journal.lost[AttemptKey(job, number, attempt)] = float(since)


def _check(job: str, numbers: list[int]) -> None:
    """Raise ValueError for what names no attempt: it becomes part of names of files."""
    if set(map(type, numbers)) - {int}:
        raise ValueError(f"a number of {job} is none")
    for number in (min(numbers), max(numbers)):
        if AttemptKey.from_name(AttemptKey(job, number, 1).name) is None:
            raise ValueError(f"{job}, {number} names no attempt")


def _identity(path: Path) -> str:
    """Return the agent's name, which outlives its process."""
    if not path.exists():
        try:
            write_private(path, f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}".encode())
        except OSError as error:
            raise _unusable(path.parent, error) from error
    return path.read_text()
