"""The ledger: one file to which every payload appends a line when it starts and one when it ends.

The order of the lines is the order of what happened, whatever the clocks say.
"""

from dataclasses import dataclass
from pathlib import Path

Attempt = tuple[str, int, int]  # job, instance, attempt

# $$ is the payload's process; one echo is one write, and O_APPEND lets none overwrite another.
START = (
    'sign() {{ echo "$* $DWF_JOB_ID $DWF_INSTANCE_ID $DWF_ATTEMPT $$ $EXEC_DIR_ROOT" >> {ledger}; }}; sign start 0'
)
END = "sign end {code}; exit {code}"


@dataclass(frozen=True)
class Entry:
    """A line; ``code`` is the exit code to come, at the end, and ``place`` the agent that runs the payload."""

    word: str
    code: int
    attempt: Attempt
    pid: int
    place: str


def read(path: Path) -> list[Entry]:
    """Return what was written; raises ValueError for a line that is none of a payload's."""
    return [_entry(line) for line in path.read_text().splitlines()] if path.exists() else []


def _entry(line: str) -> Entry:
    word, code, job, instance, attempt, pid, place = line.split(" ")
    return Entry(word, int(code), (job, int(instance), int(attempt)), int(pid), Path(place).parent.name)
