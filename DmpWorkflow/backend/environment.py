"""What a payload sees: its folder, its environment, and the command that sources the site's software before it."""

import contextlib
import itertools
import logging
import os
import shlex
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from DmpWorkflow.backend.run_file import RunFile
from DmpWorkflow.core.payload_environment import facts_of_attempt, merge, six_digits
from DmpWorkflow.core.variables import expand
from DmpWorkflow.utils.errors import ConfigurationError, InvalidInput

PAYLOAD_FILE = "payload"
FOLDERS = 1000  # of one instance on one node

logger = logging.getLogger(__name__)

# The sourced files get no arguments: some would take the payload's for their own.
START_SCRIPT = """\
dwf_externals=$1 dwf_release=$2 dwf_folder=$PWD
shift 2
dwf_command=("$@")
set --
if [ -n "$dwf_externals" ]; then source "$dwf_externals"; fi
if [ -n "$dwf_release" ]; then cd "$dwf_release" && source bin/thisdmpsw.sh; fi
cd "$dwf_folder" || exit 1
exec "${dwf_command[@]}"
"""


def payload_environment(run: RunFile, worker: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment with all that a payload is promised.

    Later variables may use earlier ones. What the workflow says of the attempt wins over a variable of that name.
    """
    environment = merge(worker, run.attributes, _facts(run), run.variables)
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidInput(f"{name!r} cannot be a variable of the environment")
    return environment


def _facts(run: RunFile) -> dict[str, str]:
    attempt = (run.job_id, run.instance_id, run.attempt)
    facts = facts_of_attempt(*attempt, run.title, run.type, run.release) | {
        "DAMPE_SW_DIR": run.site.dampe_sw_dir,
        "DAMPE_WORKFLOW_ROOT": str(Path(__file__).resolve().parents[2]),
        "EXEC_DIR_ROOT": run.site.exec_dir_root,
        "BATCH_SYSTEM": run.batch.system,
        "BATCH_REQUIREMENTS": run.batch.requirements,
        "BATCH_EXTRA": run.batch.extra,
        "BATCH_QUEUE": run.batch.queue,
        "BATCH_NAME": run.batch.name,
    }
    return facts if run.seed is None else facts | {"DWF_RANDOM_SEED": str(run.seed)}


def make_folder(run: RunFile, batch_id: str | None) -> Path:
    """Make the attempt's own folder; what an earlier attempt left there is not touched."""
    parent = Path(expand(run.site.exec_dir_root, os.environ), six_digits(run.instance_id)).absolute()
    name = (batch_id or "local").replace("/", "_")
    for number in range(FOLDERS):
        folder = parent / (f"{name}-{number}" if number else name)
        parent.mkdir(parents=True, exist_ok=True)
        _check_owners(parent)
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # the latter: a success removed the parent
            folder.mkdir()
            return folder
    raise ConfigurationError(f"no folder to run in: {parent} is full of left-over ones")


def _check_owners(folder: Path) -> None:
    """Raise ConfigurationError where everybody may write, as in /tmp, and somebody has put a folder before us.

    Its owner could replace what we put into it.
    """
    for upper, lower in itertools.pairwise((*reversed(folder.parents), folder)):
        if upper.stat().st_mode & stat.S_IWOTH:
            found = lower.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                raise ConfigurationError(
                    f"{lower} is not ours: set [site] EXEC_DIR_ROOT to a folder that only this account may write to"
                )


def remove_folder(folder: Path) -> None:
    """Remove the folder of a success, and the instance's one if nothing else is in it."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        logger.warning("cannot remove %s: %s", folder, error)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def payload_command(run: RunFile, environment: Mapping[str, str], start_script: Path) -> list[str]:
    """Return the argument list that runs the payload; writes ``start_script`` if there is something to source.

    Raises ConfigurationError if the site's ExternalsScript is missing, InvalidInput for what cannot be run at all.
    """
    command = [*_words(expand(run.executable, environment)), PAYLOAD_FILE]
    externals, release = _externals(run, environment), _release_folder(run, environment)
    if not (externals or release):
        return command
    start_script.write_text(START_SCRIPT)
    return ["/bin/bash", str(start_script), externals, release, *command]


def _words(executable: str) -> list[str]:
    try:
        return shlex.split(executable) or ["/bin/bash"]
    except ValueError as error:
        raise InvalidInput(f"executable {executable!r}: {error}") from error


def _externals(run: RunFile, environment: Mapping[str, str]) -> str:
    if not (run.release and run.site.externals_script):
        return ""
    script = Path(expand(run.site.externals_script, environment))
    if not script.is_file():
        raise ConfigurationError(f"ExternalsScript does not exist on this worker node: {script}")
    return str(script.absolute())


def _release_folder(run: RunFile, environment: Mapping[str, str]) -> str:
    """Return the folder of the job's release, "" if the job has none or it is not installed here."""
    if not run.release:
        return ""
    if "/" in run.release or "\0" in run.release:
        raise InvalidInput(f"release {run.release!r} cannot name a folder")
    folder = Path(expand(run.site.dampe_sw_dir, environment), "releases", f"DmpSoftware-{run.release}").absolute()
    return str(folder) if (folder / "bin" / "thisdmpsw.sh").is_file() else ""
