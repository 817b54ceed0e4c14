"""A look at the site's running jobs from outside, by the batch system's figures: for payloads that cannot report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from DmpWorkflow.backend import agent_reports
from DmpWorkflow.backend.interface import AttemptKey, Backend, BatchJob
from DmpWorkflow.backend.run_file import RunLimits
from DmpWorkflow.backend.watchdog import Usage, verdict
from DmpWorkflow.client import Client
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.lifecycle import MajorStatus

Json = dict[str, Any]


@dataclass(frozen=True)
class Stopped:
    """A job that used too much, and what it used."""

    key: AttemptKey
    minor_status: str
    told: str


@dataclass(frozen=True)
class Look:
    """What one look saw: jobs that run, those of which the batch system tells figures, those that were stopped."""

    running: int
    measured: int
    stopped: list[Stopped]


def look(settings: Settings, client: Client, backend: Backend) -> Look:
    """Stop what exceeds its limits and report it. Raises Unavailable if server or batch system do not answer."""
    running = [job for job in backend.query().values() if job.status is MajorStatus.RUNNING]
    limits = {(item["t_id"], item["inst_id"]): item for item in client.watched(settings.site.name)} if running else {}
    jobs = list(backend.measure(running).values()) if running else []
    stopped = {job.key: found for job in jobs if (found := _judge(job, limits.get(_place(job)), settings))}
    if stopped:
        over = [job for job in jobs if job.key in stopped]
        backend.cancel(over)
        reports = [agent_reports.exceeded(job, stopped[job.key].minor_status, stopped[job.key].told) for job in over]
        client.report_many(reports)
    measured = sum(job.cpu_seconds is not None or job.memory_mb is not None for job in jobs)
    return Look(len(running), measured, list(stopped.values()))


def _place(job: BatchJob) -> tuple[str, int]:
    return job.key.job_id, job.key.instance_id


def _judge(job: BatchJob, told: Mapping[str, Any] | None, settings: Settings) -> Stopped | None:
    """Return why a job must stop; its own limits are those that its payload reported, else the site's."""
    site, watchdog = settings.site, settings.watchdog
    memory = float((told or {}).get("max_mem") or site.hpc_memory_mb)
    cpu = float((told or {}).get("max_cpu") or site.hpc_cputime_seconds)
    used = Usage(job.cpu_seconds or 0.0, job.memory_mb or 0.0, job.memory_mb or 0.0)
    minor = verdict(used, RunLimits(memory, cpu, watchdog.ratio_mem, watchdog.ratio_cpu))
    if minor is None:
        return None
    words = f"{used.cpu_seconds:.0f} s of {cpu:.0f} s CPU time, {used.memory_mb:.0f} MB of {memory:.0f} MB memory"
    return Stopped(job.key, minor, f"stopped from outside, by the batch system's figures: {words}")
