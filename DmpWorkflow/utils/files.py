"""Files that a reader sees whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_private(target: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in its place, atomically, such that only its owner may read it, or run it with mode 0700.

    It survives a crash of the machine, which costs two waits for the disk.
    """
    with private_file(target) as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)


@contextmanager
def private_file(target: Path) -> Iterator[BinaryIO]:
    """Give a stream to write a private file to, which gets its place once all is written; else nothing is left."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Give a stream to write to, which gets its place as ``target`` once all is written; else nothing is left."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
