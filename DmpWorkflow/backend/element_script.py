"""The script that a batch system with job arrays gets: each element goes on with the script in its own folder.

It holds the folders itself, and batch systems keep a copy of it, so that there is nothing to clean up.
"""

import shlex
from collections.abc import Sequence
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
    folders = "\n".join(shlex.quote(str(submission.folder)) for submission in submissions)
    index = words.index if array else "1"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {name}",
            "umask 077",
            f"folders=(\n{folders}\n)",
            f"folder=${{folders[{index} - 1]}}",
            f'export {BATCH_ID_VARIABLE}="{words.element_id if array else words.plain_id}"',
            'cd "$folder" || exit 1',
            'exec "$folder/script" </dev/null >>"$folder/output.log" 2>&1',
            "",
        ]
    )
