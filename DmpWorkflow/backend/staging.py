"""Brings files to a payload and its results back: whole and checked, or not at all.

A file is copied under another name beside its target, compared with its source, and then renamed. ``root://``
locations go through xrootd's own tools; https://xrootd.slac.stanford.edu/doc/man/xrdcp.1.html and xrdfs.1.html.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import subprocess
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import unquote, urlsplit

from DmpWorkflow.utils.errors import DmpWorkflowError

CHUNK = 4 * 1024 * 1024
PAUSES = (2.0, 10.0, 30.0, 90.0)  # seconds before each of the four further tries
XROOTD_NOT_FOUND = 54  # exit code of xrdcp and xrdfs for a file that is not there
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EREMOTEIO})

logger = logging.getLogger(__name__)


class StagingError(DmpWorkflowError):
    """A file could not be staged."""

    reason: ClassVar[str] = "staging failed"  # a few words without names, to become the minor status


class MissingSource(StagingError):
    """There is no such file to stage."""

    reason = "source file does not exist"


class MissingTool(StagingError):
    """The tool for this kind of location is not installed."""

    reason = "transfer tool is not installed"


class UnknownLocation(StagingError):
    """This kind of location is not known."""

    reason = "location is not supported"


class TransferFailed(StagingError):
    """A transfer failed; another try may succeed."""

    reason = "transfer failed"
    transient = True


class TargetFull(StagingError):
    """The target takes no more: its disk is full, or a quota is used up."""

    reason = "no space left at target"


class Damaged(TransferFailed):
    """A copy differs from its source."""

    reason = "copy differs from source"


Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_tool(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a transfer tool to its end; raises MissingTool."""
    try:
        # S603: no shell, and every location is absolute or begins with root://, so that none is taken for an option
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise MissingTool(f"{command[0]} is not installed on this worker node, and root:// needs it") from error


def stage(
    source: str,
    target: str,
    *,
    run: Run = run_tool,
    pauses: Sequence[float] = PAUSES,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Copy the file ``source`` to ``target`` (a file, or a folder that exists or ends in ``/``); return its new name.

    Raises MissingSource and other errors that cannot pass at once, TransferFailed when all tries failed.
    """
    start = locate(source)
    end = _inside(locate(target), target, start.name)
    for pause in pauses:
        try:
            _transfer(start, end, run)
            return str(end)
        except StagingError as error:
            if not error.transient:
                raise
            logger.warning("%s; next try in %g s", error, pause)
        sleep(pause)
    _transfer(start, end, run)
    return str(end)


def _transfer(start: "Location", end: "Location", run: Run) -> None:
    if isinstance(start, Path) and isinstance(end, Path):
        _copy_local(start, end)
    else:
        _Xrootd(run).copy(start, end)


@dataclass(frozen=True)
class Remote:
    """A file of an xrootd server."""

    server: str
    path: str
    query: str = ""

    def __str__(self) -> str:
        return f"root://{self.server}/{self.path}" + (f"?{self.query}" if self.query else "")

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def beside(self) -> "Remote":
        """Return a name in the same folder that nobody else uses."""
        folder = self.path.rsplit("/", 1)[0]
        return Remote(self.server, f"{folder}/{_temporary_name(self.name)}", self.query)


Location = Path | Remote


def locate(text: str) -> Location:
    """Return what ``text`` names: a path, ``file:`` or ``root:`` URL. Raises UnknownLocation."""
    if "://" not in text:
        if not text or "\0" in text:
            raise UnknownLocation(f"{text!r} names no file")
        return Path(text).absolute()
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise UnknownLocation(f"{text!r} is no location: {error}") from error
    if "\0" in unquote(text):
        raise UnknownLocation(f"{text!r} names no file")
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Path(unquote(url.path))
    if url.scheme in ("root", "xroot") and url.netloc.strip("-") == url.netloc != "" and url.path.strip("/"):
        return Remote(url.netloc, "/" + url.path.lstrip("/"), url.query)
    raise UnknownLocation(f"cannot stage {text!r}: expected a path or root://server//path")


def _temporary_name(name: str) -> str:
    return f".{name[:200]}.{uuid.uuid4().hex}.part"


def _inside(end: Location, text: str, name: str) -> Location:
    if isinstance(end, Remote):
        return Remote(end.server, end.path + name, end.query) if end.path.endswith("/") else end
    return end / name if text.endswith("/") or end.is_dir() else end


def _copy_local(source: Path, target: Path) -> None:
    if source.is_dir():
        raise UnknownLocation(f"{source} is a folder: name its files")
    if source.exists() and not source.is_file():  # a pipe would make us wait, and a device never end
        raise UnknownLocation(f"{source} is no regular file")
    with contextlib.suppress(OSError):
        if source.samefile(target):
            return
    try:
        with source.open("rb") as reader:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(target) as temporary:
                _copy_checked(reader, temporary)
                shutil.copymode(source, temporary)
    except OSError as error:
        raise _explain(error, source, target) from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a new name beside ``target`` that becomes the target, or goes if that fails."""
    temporary = target.with_name(_temporary_name(target.name))
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _copy_checked(reader: BinaryIO, temporary: Path) -> None:
    read = hashlib.sha256()
    with temporary.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            read.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
        with contextlib.suppress(OSError):  # read back the disk, not the cache, where that can be had
            os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with temporary.open("rb") as copy:
        if hashlib.file_digest(copy, "sha256").digest() != read.digest():
            raise Damaged(f"the copy of {reader.name} differs from it")


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a crash; some file systems cannot, and then there is nothing to do about it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explain(error: OSError, source: Path, target: Path) -> StagingError:
    if isinstance(error, FileNotFoundError) and not source.exists():
        return MissingSource(f"source file does not exist: {source}")
    kind = TargetFull if error.errno in FULL else TransferFailed if error.errno in PASSING else StagingError
    return kind(f"cannot copy {source} to {target}: {error.strerror or error}")


class _Xrootd:
    """Copies with xrdcp, and asks with xrdfs; ``run`` runs an argument list."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def copy(self, source: Location, target: Location) -> None:
        try:
            size = self._size(source, MissingSource)
            if isinstance(target, Path):
                self._copy_here(source, target, size)
            else:
                self._copy_there(source, target, size)
        except OSError as error:
            raise StagingError(f"cannot copy {source} to {target}: {error.strerror or error}") from error

    def _copy_here(self, source: Location, target: Path, size: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as temporary:
            self._copy(source, temporary, size)

    def _copy_there(self, source: Location, target: Remote, size: int) -> None:
        temporary = target.beside()
        try:
            self._copy(source, temporary, size)
            self._rename(temporary, target)
        except BaseException:
            with contextlib.suppress(StagingError):
                self._ask(temporary, "rm", temporary.path)
            raise

    def _copy(self, source: Location, temporary: Location, size: int) -> None:
        self._check(["xrdcp", "--nopbar", "--force", "--path", str(source), str(temporary)], source)
        copied = self._size(temporary, TransferFailed)
        if copied != size:
            raise Damaged(f"the copy of {source} has {copied} bytes instead of {size}")
        before, after = self._adler32(source), self._adler32(temporary)
        if before and after and before != after:
            raise Damaged(f"the copy of {source} has the checksum {after} instead of {before}")

    def _rename(self, temporary: Remote, target: Remote) -> None:
        """xrootd does not rename onto a file that exists: that one has to go first."""
        if self._ask(target, "stat", target.path).returncode == 0:
            self._check(["xrdfs", target.server, "rm", target.path], target)
        self._check(["xrdfs", target.server, "mv", temporary.path, target.path], target)

    def _size(self, location: Location, missing: type[StagingError]) -> int:
        if isinstance(location, Path):
            if not location.is_file():
                raise missing(f"file does not exist: {location}")
            return location.stat().st_size
        text = self._check(["xrdfs", location.server, "stat", location.path], location, missing)
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Size" and value.strip().isdigit():
                return int(value)
        raise TransferFailed(f"xrdfs tells no size of {location}: {text.strip()[:200]}")

    def _adler32(self, location: Location) -> str:
        """Return the checksum, "" if the server offers none."""
        if isinstance(location, Path):
            return _local_adler32(location)
        answer = self._ask(location, "query", "checksum", location.path)
        words = answer.stdout.split()
        return words[1] if answer.returncode == 0 and len(words) > 1 and words[0] == "adler32" else ""

    def _ask(self, location: Remote, *words: str) -> "subprocess.CompletedProcess[str]":
        return self._run(["xrdfs", location.server, *words])

    def _check(self, command: Sequence[str], location: Location, missing: type[StagingError] = TransferFailed) -> str:
        done = self._run(command)
        if done.returncode == XROOTD_NOT_FOUND:
            raise missing(f"file does not exist: {location}")
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise TransferFailed(f"{command[0]} failed with exit code {done.returncode} for {location}: {said}")
        return done.stdout


def _local_adler32(path: Path) -> str:
    checksum = 1
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.adler32(chunk, checksum)
    return f"{checksum:08x}"
