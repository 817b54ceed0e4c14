"""What a job is, as its XML says it. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variable:
    """A variable that a payload sees in its environment."""

    name: str
    value: str
    var_type: str = "string"


@dataclass(frozen=True)
class File:
    """A file to stage in (from ``source`` into the payload's folder) or out."""

    source: str
    target: str
    file_type: str = ""


@dataclass(frozen=True)
class JobDefinition:
    """One ``<Job>``; empty texts stand for absent attributes. ``line``: where it begins in its file."""

    executable: str
    script: str
    input_files: tuple[File, ...] = ()
    output_files: tuple[File, ...] = ()
    variables: tuple[Variable, ...] = ()
    release: str = ""
    type: str = ""
    name: str = ""
    site: str = ""
    priority: int = 0
    retries: int = 0
    retry_on: str = ""
    lost_after: str = ""
    line: int = field(default=0, compare=False)
