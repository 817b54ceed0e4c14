"""The work folder of an attempt: what to run, and the script that the batch system starts."""

import errno
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from DmpWorkflow.backend.interface import AttemptKey, Backend, Submission
from DmpWorkflow.backend.run_file import FileToStage, PayloadVariable, RunBatch, RunFile, RunLimits, RunSite
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.batch_needs import BatchNeeds, apply_overrides
from DmpWorkflow.core.random_seed import random_seed
from DmpWorkflow.core.work_folder import work_folder
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput, Unavailable
from DmpWorkflow.utils.files import write_quickly

WRAPPER = """\
#!/bin/bash
# {name}: runs one attempt; written by the agent.
exec {image}{python} -m DmpWorkflow.backend.runner {run_file}
"""
LOG = "output.log"
FOR_EVER = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # no disk will ever hold such a name


def outbox_folder(settings: Settings) -> Path:
    """Return where payloads keep reports that they could not deliver."""
    return Path(settings.site.workdir) / ".outbox"


def prepare(
    definition: Mapping[str, Any], instance: Mapping[str, Any], settings: Settings, backend: Backend, python: str = ""
) -> tuple[Submission, list[str]]:
    """Write the work folder of one attempt; return what to submit, and warnings.

    Raises InvalidInput for what the site cannot understand, Unavailable if the folder cannot be written.
    """
    key = AttemptKey(instance["job_id"], instance["instance_id"], instance["attempt"])
    needs, warnings = apply_overrides(site_needs(settings), _values(definition))
    folder = Path(work_folder(settings.site.workdir, definition["title"], definition["type"], key.instance_id))
    try:
        _make_empty(folder)
        run_file = folder / "job.json"
        _run_file(definition, instance, settings, backend, needs).save(run_file)
        script = folder / "script"
        text = WRAPPER.format(
            name=key.name,
            image="" if backend.runs_images else _in_image(needs.image, settings),
            python=shlex.quote(python or sys.executable),
            run_file=shlex.quote(str(run_file)),
        )
        write_quickly(script, text.encode(), 0o700)
    except OSError as error:
        if error.errno in FOR_EVER:
            raise InvalidInput(f"work folder {str(folder)[:300]}: {error.strerror}: choose a shorter name") from error
        raise Unavailable(f"work folder {folder}: {error.strerror}: check [site] workdir") from error
    return Submission(key, folder, script, folder / LOG, needs), warnings


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


def _make_empty(folder: Path) -> None:
    """Make the folder; what an earlier attempt left is removed, as the original did."""
    if folder.is_symlink():
        raise DmpWorkflowError(f"work folder {folder} is a symbolic link: remove it")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)


def _run_file(
    definition: Mapping[str, Any],
    instance: Mapping[str, Any],
    settings: Settings,
    backend: Backend,
    needs: BatchNeeds,
) -> RunFile:
    site, server, watchdog = settings.site, settings.server, settings.watchdog
    return RunFile(
        server_url=server.url,
        token=instance["token"],
        ca_file=server.ca_file or None,
        job_id=instance["job_id"],
        instance_id=instance["instance_id"],
        attempt=instance["attempt"],
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
        seed=_seed(instance, settings),
        interval_seconds=watchdog.interval,
    )


def _seed(instance: Mapping[str, Any], settings: Settings) -> int | None:
    base = settings.global_.seed
    if base is None and not settings.global_.random_seed:
        return None
    return random_seed(instance["job_id"], instance["instance_id"], instance["attempt"], base)
