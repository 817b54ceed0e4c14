"""The script that a batch system with job arrays gets: each element goes on with its part of the agent's scripts.

Batch systems keep a copy of it, so that there is nothing to clean up.
"""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from DmpWorkflow.backend.interface import Submission

BATCH_ID_VARIABLE = "DWF_BATCH_ID"  # where the runner finds its batch id


@dataclass(frozen=True)
class ElementWords:
    """How a batch system tells a job its id, as words of the shell; of an array, its element as well."""

    plain_id: str
    element_id: str
    index: str


def element_script(name: str, submissions: Sequence[Submission], words: ElementWords, array: bool) -> str:
    """Return the script of one job, or of an array with elements 1, 2, ... in the order of ``submissions``."""
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {name}",
            f"element=${{{words.index}}}" if array else "element=1",
            f'export {BATCH_ID_VARIABLE}="{words.element_id if array else words.plain_id}"',
            *_starts(submissions),
            "exit 1",
            "",
        ]
    )


def _starts(submissions: Sequence[Submission]) -> Iterator[str]:
    """Yield a line for each run of elements that are consecutive in one script, as most are."""
    numbered = enumerate(submissions, start=1)
    for (script, ahead), run in itertools.groupby(
        numbered, key=lambda item: (item[1].script, item[1].element - item[0])
    ):
        *_, (last, _) = run
        yield f"[ $element -gt {last} ] || exec {shlex.quote(str(script))} $((element + {ahead}))"
