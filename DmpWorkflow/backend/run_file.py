"""What runners on worker nodes are told: a file of JSON lines, written by the agent and readable by its owner only.

The first line is what a group of attempts has in common, each other one is what is an attempt's own.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar

from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.files import write_private

Part = TypeVar("Part")

OWN = ("token", "job_id", "instance_id", "attempt", "seed")


@dataclass(frozen=True)
class FileToStage:
    """A file to bring from ``source`` to ``target``."""

    source: str
    target: str
    file_type: str = ""


@dataclass(frozen=True)
class PayloadVariable:
    """A MetaData variable; its value may name variables of the worker's environment."""

    name: str
    value: str
    var_type: str = "string"


@dataclass(frozen=True)
class RunSite:
    """The site, as its payloads see it."""

    name: str = "local"
    dampe_sw_dir: str = ""
    exec_dir_root: str = "/tmp"  # noqa: S108 - each attempt makes its own folder in it
    externals_script: str = ""


@dataclass(frozen=True)
class RunBatch:
    """The batch system, and ``batch_id_variable``: where it tells a job its id (``SLURM_JOB_ID``; "" if nowhere)."""

    system: str = "local"
    requirements: str = ""
    extra: str = ""
    queue: str = ""
    name: str = ""
    batch_id_variable: str = ""


@dataclass(frozen=True)
class RunLimits:
    """What the payload may use (0: no limit), and the share of it at which it is stopped."""

    memory_mb: float = 0.0
    cpu_seconds: float = 0.0
    ratio_mem: float = 0.95
    ratio_cpu: float = 0.98


def _parts(kind: type) -> Any:
    """Declare a field that holds many of ``kind``."""
    return field(default=(), metadata={"of": kind})


@dataclass(frozen=True)
class RunFile:
    """One attempt: where to report it, what to run, and within which limits."""

    server_url: str
    token: str = field(repr=False)
    job_id: str
    instance_id: int
    attempt: int
    outbox: str
    ca_file: str | None = None
    slug: str = ""
    title: str = ""
    type: str = ""
    release: str = ""
    executable: str = "/bin/bash"
    script: str = ""
    input_files: tuple[FileToStage, ...] = _parts(FileToStage)
    output_files: tuple[FileToStage, ...] = _parts(FileToStage)
    variables: tuple[PayloadVariable, ...] = _parts(PayloadVariable)
    attributes: dict[str, str] = field(default_factory=dict)
    site: RunSite = RunSite()
    batch: RunBatch = RunBatch()
    limits: RunLimits = RunLimits()
    seed: int | None = None  # becomes DWF_RANDOM_SEED
    interval_seconds: float = 300.0  # between two samples that are reported
    check_seconds: float = 5.0  # between two looks of the watchdog
    grace_seconds: float = 600.0  # the first report is accepted within this time, or nothing runs
    stop_seconds: float = 10.0  # between TERM and KILL
    linger_seconds: float = 120.0  # tries to deliver the end, before that is left to the agent

    @classmethod
    def load(cls, path: Path, element: int) -> Self:
        """Read the attempt ``element`` (from 1) of a group; raises InvalidInput with the place and the reason."""
        place = f"run file {path}, element {element}"
        try:
            with path.open(encoding="utf-8") as file:
                lines = [file.readline(), *itertools.islice(file, element - 1, element)]
            parts = [json.loads(line) for line in lines]
        except OSError as error:
            raise InvalidInput(f"cannot read run file {path}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"{place}: not JSON: {error}") from error
        if len(parts) < 2:
            raise InvalidInput(f"{place}: there is none")
        if not all(isinstance(part, dict) for part in parts):
            raise InvalidInput(f"{place}: not an object")
        return _build(cls, parts[0] | parts[1], place)

    @classmethod
    def save(cls, path: Path, group: Sequence[Self]) -> None:
        """Write attempts that differ in what is their own, readable by their owner only, since there are tokens."""
        common = {name: value for name, value in vars(group[0]).items() if name not in OWN}
        lines = [json.dumps(common, default=vars)]
        lines += [json.dumps({name: getattr(run, name) for name in OWN}) for run in group]
        write_private(path, "".join(f"{line}\n" for line in lines).encode())


def _build(kind: type[Part], content: object, place: str) -> Part:
    """Make a ``kind`` (a dataclass) of decoded JSON; by hand, since pydantic costs a payload 0.3 s and 20 MB."""
    if not isinstance(content, dict):
        raise InvalidInput(f"{place}: not an object")
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - set(fields)):
        raise InvalidInput(f"{place}: unknown key {unknown[0]!r}")
    values = {name: _value(fields[name], value, f"{place}: {name}") for name, value in content.items()}
    try:
        return kind(**values)
    except TypeError as error:  # a required key is missing; the message names it
        raise InvalidInput(f"{place}: {error}") from error


def _value(entry: "dataclasses.Field[Any]", value: object, place: str) -> object:
    if (kind := entry.metadata.get("of")) is not None:
        return tuple(_build(kind, part, f"{place}[{number}]") for number, part in enumerate(_list(value, place)))
    if dataclasses.is_dataclass(entry.type):
        return _build(entry.type, value, place)  # type: ignore[arg-type]
    if entry.name == "attributes":
        return _texts(value, place)
    return _plain(entry.type, value, place)


def _list(value: object, place: str) -> list[object]:
    if not isinstance(value, list):
        raise InvalidInput(f"{place}: not a list")
    return value


def _texts(value: object, place: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidInput(f"{place}: not an object of texts")
    return value


def _plain(kind: object, value: object, place: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type | UnionType) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise InvalidInput(f"{place}: {value!r} is not {getattr(kind, '__name__', kind)}")
