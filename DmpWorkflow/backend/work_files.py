"""What the batch system starts: scripts of the agent's, each for many attempts, which make the work folders."""

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from DmpWorkflow.backend.batch_names import batch_name, members, split_by_name
from DmpWorkflow.backend.interface import AttemptKey, Backend, Submission
from DmpWorkflow.backend.run_file import FileToStage, PayloadVariable, RunBatch, RunFile, RunLimits, RunSite
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.batch_needs import BatchNeeds, apply_overrides
from DmpWorkflow.core.random_seed import random_seed
from DmpWorkflow.core.work_folder import job_folder, number_as_path
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput, Unavailable
from DmpWorkflow.utils.files import write_private

WRAPPER = """\
#!/bin/bash
# Runs an attempt of those that were claimed together, its argument says which; written by the agent.
folders=(
{folders}
)
folder=${{folders[$1 - 1]}}
usual=$(umask)
umask 077
# On a full disk the payload runs nevertheless: its work is worth more than its output.
mkdir -p "$folder" && cd "$folder" && exec >>{log} 2>&1
umask "$usual" # for what the payload makes
exec {python} -m DmpWorkflow.backend.runner {run_file} "$1" </dev/null
"""
LOG = "output.log"
LOG_LINES, LOG_BYTES = 20, 8 * 1024  # of the output of a payload that gave no report
SCRIPT, RUN_FILE = ".sh", ".jsonl"
MOST = 1000  # attempts in one script
FOR_EVER = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # no disk will ever hold such a name


def outbox_folder(settings: Settings) -> Path:
    """Return where payloads keep reports that they could not deliver."""
    return Path(settings.site.workdir) / ".outbox"


@dataclass
class Prepared:
    """What can be submitted, what cannot (with an Unavailable: not now), and warnings about all of them.

    Their work folders are in ``folder``, by their numbers.
    """

    folder: Path
    submissions: list[Submission] = field(default_factory=list)
    failed: dict[AttemptKey, DmpWorkflowError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def prepare(
    definition: Mapping[str, Any],
    instances: Mapping[AttemptKey, Mapping[str, Any]],
    settings: Settings,
    backend: Backend,
    scripts: Path,
    python: str = "",
) -> Prepared:
    """Write a script that runs attempts of one definition, and the file that tells it how, into ``scripts``.

    One of each for up to 1000 attempts, since files are what costs most at a site. Raises InvalidInput for what the
    site cannot understand.
    """
    needs, warnings = apply_overrides(site_needs(settings), _values(definition))
    job = Path(job_folder(settings.site.workdir, definition["title"], definition["type"]))
    prepared = Prepared(job, warnings=warnings)
    folders: dict[AttemptKey, Path] = {}
    for key in sorted(instances, key=lambda key: (key.job_id, key.attempt, key.instance_id)):
        try:
            folders[key] = _cleared(job / number_as_path(key.instance_id))
        except DmpWorkflowError as error:
            prepared.failed[key] = error
    runs = _run_files(definition, {key: instances[key]["token"] for key in folders}, settings, backend, needs)
    words = ("" if backend.runs_images else _in_image(needs.image, settings)) + shlex.quote(python or sys.executable)
    for keys in split_by_name(list(folders), MOST):
        script = scripts / f"{batch_name(keys)}{SCRIPT}"
        try:
            _write(script, [runs[key] for key in keys], [folders[key] for key in keys], words)
        except OSError as error:
            full = Unavailable(f"{script}: {error.strerror}: check [site] workdir and its disk")
            prepared.failed |= dict.fromkeys(keys, full)
            continue
        prepared.submissions += [Submission(key, script, element, needs) for element, key in enumerate(keys, start=1)]
    return prepared


def _write(script: Path, runs: Sequence[RunFile], folders: Sequence[Path], python: str) -> None:
    script.parent.mkdir(mode=0o700, exist_ok=True)
    run_file = script.with_suffix(RUN_FILE)
    RunFile.save(run_file, runs)
    text = WRAPPER.format(
        folders="\n".join(shlex.quote(str(folder)) for folder in folders),
        log=LOG,
        python=python,
        run_file=shlex.quote(str(run_file)),
    )
    write_private(script, text.encode(), 0o700)


def discard_scripts(scripts: Path, is_needed: Callable[[AttemptKey], bool]) -> None:
    """Remove what was written for attempts none of which is needed any more: there are tokens in it."""
    for path in scripts.iterdir() if scripts.is_dir() else ():
        if not any(map(is_needed, members(path.stem))):
            path.unlink(missing_ok=True)


def site_needs(settings: Settings) -> BatchNeeds:
    """Return what a job of this site gets unless it says otherwise."""
    site = settings.site
    return BatchNeeds(
        memory_mb=site.hpc_memory_mb,
        cpu_seconds=site.hpc_cputime_seconds,
        queue=site.hpc_queue,
        requirements=site.hpc_requirements,
        extra=site.hpc_extra,
        name=site.hpc_name,
        cores=site.hpc_cores,
        wall_seconds=site.hpc_walltime_seconds,
        account=site.hpc_account,
        image=site.hpc_image,
    )


def _in_image(image: str, settings: Settings) -> str:
    """Return what starts a command in a container image, with the folders that a payload needs."""
    if not image:
        return ""
    bound = [settings.site.workdir, settings.site.exec_dir_root, settings.site.sw_dir]
    words = ["apptainer", "exec", *(word for folder in bound if folder for word in ("--bind", folder)), image]
    return shlex.join(words) + " "


def _values(definition: Mapping[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in definition["variables"]}


def last_lines(folder: Path) -> str:
    """Return the end of a payload's output; it tells what kept the runner from reporting."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return ""
    return "".join(f"{line}\n" for line in lines)


def _cleared(folder: Path) -> Path:
    """Return the work folder; what an earlier attempt left in it is removed, as the original did.

    Raises InvalidInput for a name that no disk will ever hold, Unavailable if the remains cannot be removed.
    """
    try:
        if folder.is_symlink():
            raise DmpWorkflowError(f"work folder {folder} is a symbolic link: remove it")
        with suppress(FileNotFoundError):  # there is none, or somebody else removes what is in it, too
            shutil.rmtree(folder)
        if os.path.lexists(folder):
            shutil.rmtree(folder)
    except OSError as error:
        if error.errno in FOR_EVER:
            raise InvalidInput(f"work folder {str(folder)[:300]}: {error.strerror}: choose a shorter name") from error
        raise Unavailable(f"work folder {folder}: {error.strerror}: check [site] workdir") from error
    return folder


def _run_files(
    definition: Mapping[str, Any],
    tokens: Mapping[AttemptKey, str],
    settings: Settings,
    backend: Backend,
    needs: BatchNeeds,
) -> dict[AttemptKey, RunFile]:
    """Return what the runners are told, with the tokens of their attempts."""
    site, server, watchdog = settings.site, settings.server, settings.watchdog
    shared = RunFile(
        server_url=server.url,
        token="",
        ca_file=server.ca_file or None,
        job_id="",
        instance_id=0,
        attempt=0,
        outbox=str(outbox_folder(settings)),
        slug=definition["slug"],
        title=definition["title"],
        type=definition["type"],
        release=definition["release"],
        executable=definition["executable"],
        script=definition["script"],
        input_files=tuple(FileToStage(**file) for file in definition["input_files"]),
        output_files=tuple(FileToStage(**file) for file in definition["output_files"]),
        variables=tuple(PayloadVariable(**variable) for variable in definition["variables"]),
        attributes=definition["attributes"],
        site=RunSite(site.name, site.sw_dir, site.exec_dir_root, site.externals_script),
        batch=RunBatch(
            backend.name, needs.requirements, needs.extra, needs.queue, needs.name, backend.batch_id_variable
        ),
        limits=RunLimits(needs.memory_mb, needs.cpu_seconds, watchdog.ratio_mem, watchdog.ratio_cpu),
        interval_seconds=watchdog.interval,
    )
    return {
        key: replace(shared, token=token, seed=_seed(key, settings), **key._asdict()) for key, token in tokens.items()
    }


def _seed(key: AttemptKey, settings: Settings) -> int | None:
    base = settings.global_.seed
    if base is None and not settings.global_.random_seed:
        return None
    return random_seed(*key, base)
