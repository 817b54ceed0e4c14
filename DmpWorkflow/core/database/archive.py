"""The file of a backup: a line that says what it is, then a gzip stream of BSON records.

The first record is the header; each of the next ones holds documents of one collection, as MongoDB stores them; the
last one says how many there are of each, with a SHA-256 of all records before it. gzip adds checksums of its own.
"""

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from DmpWorkflow.utils.errors import InvalidInput, NotFound

Document = dict[str, Any]

MAGIC = b"DmpWorkflow backup 1\n"
LARGEST_RECORD = 64 * 1024 * 1024  # bytes; MongoDB answers with 16 MB and one document at most
FASTEST = 1  # of gzip's levels: it makes files 10 % larger than the next ones, in half the time
AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True)


class DamagedBackup(InvalidInput):
    """This file is no whole backup."""


@dataclass(frozen=True)
class Header:
    """What a backup is of: a database at a moment, the version of its schema and of the program."""

    database: str
    moment: datetime
    schema: int
    program: str


class Writer:
    """Writes an archive to ``stream``; it is whole once ``finish`` has been called."""

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        stream.write(MAGIC)
        self._stream = gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=FASTEST, mtime=0)
        self._digest = hashlib.sha256()
        self.documents: Counter[str] = Counter()
        self._write(vars(header))

    def add(self, collection: str, documents: bytes) -> None:
        """Add documents, given as BSON one after the other."""
        self.documents[collection] += sum(1 for _ in split(documents))
        self._write({"collection": collection, "documents": documents})

    def finish(self) -> None:
        """Write the end."""
        self._write({"end": dict(self.documents), "sha256": self._digest.hexdigest()})
        self._stream.close()

    def _write(self, record: Document) -> None:
        encoded = bson.encode(record)
        self._digest.update(encoded)
        self._stream.write(encoded)


def split(documents: bytes) -> Iterator[bytes]:
    """Return each document of BSON that is one after the other; raises DamagedBackup."""
    start = 0
    while start < len(documents):
        size = int.from_bytes(documents[start : start + 4], "little")
        if size < 5 or start + size > len(documents):
            raise DamagedBackup("a document of it is cut off")
        yield documents[start : start + size]
        start += size


class Reader:
    """Reads an archive; a context manager. Raises NotFound, or DamagedBackup wherever that comes to light."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from error
        self._digest = hashlib.sha256()
        self.documents: Counter[str] = Counter()
        try:
            with self.plainly():
                if self._file.read(len(MAGIC)) != MAGIC:
                    raise DamagedBackup("it does not begin as one")
                self._stream = gzip.GzipFile(fileobj=self._file)
                record = self._record()
                self.header = Header(**{name: record[name] for name in Header.__annotations__})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def batches(self) -> Iterator[tuple[str, bytes]]:
        """Return collections and documents (BSON, one after the other), once; the end of the file is checked last."""
        while True:
            with self.plainly():
                before = self._digest.hexdigest()
                record = self._record()
                if "end" in record:
                    self._check_end(record, before)
                    return
                collection, documents = record["collection"], cast(bytes, record["documents"])
                self.documents[collection] += sum(1 for _ in split(documents))
            yield collection, documents

    def _check_end(self, record: Document, digest: str) -> None:
        if record["sha256"] != digest or Counter(record["end"]) != self.documents:
            raise DamagedBackup("its checksum or its number of documents is wrong")
        if self._stream.read(1):
            raise DamagedBackup("something follows its end")

    def _record(self) -> Document:
        size = int.from_bytes(start := self._read(4), "little")
        if not 5 <= size <= LARGEST_RECORD:
            raise DamagedBackup("a record of it has an impossible size")
        encoded = start + self._read(size - 4)
        self._digest.update(encoded)
        return bson.decode(encoded, AWARE)

    def _read(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) < size:
            raise DamagedBackup("it is cut off")
        return found

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Raise DamagedBackup for whatever in this block cannot be read."""
        try:
            yield
        except DamagedBackup as error:
            raise DamagedBackup(f"{self._path} is no whole backup: {error}") from error
        except (EOFError, OSError, zlib.error) as error:
            raise DamagedBackup(f"{self._path} is no whole backup: {error}") from error
        except (BSONError, KeyError, TypeError, ValueError) as error:
            raise DamagedBackup(f"{self._path} is no whole backup: a record of it cannot be read") from error


def verify(path: Path) -> "Contents":
    """Read an archive to its end and return what is in it; raises NotFound or DamagedBackup."""
    with Reader(path) as reader:
        tally = _Tally()
        for collection, documents in reader.batches():
            if collection in ("job_instance", "instance_count"):
                with reader.plainly():
                    tally.add(collection, documents)
        return Contents(reader.header, dict(reader.documents), tally.highest_attempt, tally.differing_jobs())


@dataclass(frozen=True)
class Contents:
    """What a whole archive holds: ``documents`` by collection, the highest number of an attempt.

    ``differing`` is how many jobs there are whose counters do not equal a count of their instances.
    """

    header: Header
    documents: Document
    highest_attempt: int
    differing: int


class _Tally:
    """Counts instances by job and status, and what the counters say."""

    def __init__(self) -> None:
        self.highest_attempt = 0
        self._differences: Counter[tuple[object, str]] = Counter()

    def add(self, collection: str, documents: bytes) -> None:
        for found in bson.decode_all(documents, AWARE):
            if collection == "job_instance":
                self._differences[found["job"], found["status"]] += 1
                self.highest_attempt = max(self.highest_attempt, found.get("attempt", 0))
            else:
                for status, number in found["status"].items():
                    self._differences[found["job"], status] -= number

    def differing_jobs(self) -> int:
        return len({job for (job, _), number in self._differences.items() if number})
