"""What an agent reports of its batch jobs, as the server takes it."""

from pathlib import Path
from typing import Any

from DmpWorkflow.backend.interface import BY_FORCE, AttemptKey, BatchJob, Ending
from DmpWorkflow.backend.journal import Held
from DmpWorkflow.core.lifecycle import MajorStatus

LOG_LINES, LOG_BYTES = 20, 8 * 1024  # of the output of a payload that gave no report

Report = dict[str, Any]


def submitted(key: AttemptKey, batch_id: str) -> Report:
    """Return that it waits in the queue."""
    return _about(key, MajorStatus.SUBMITTED, "WaitingForExecution") | {"batchId": batch_id, "sequence": 0}


def refused(key: AttemptKey, reason: str) -> Report:
    """Return that the batch system, or the agent before it, did not accept it."""
    return _about(key, MajorStatus.FAILED, "SubmissionFailed") | {"log": reason}


def standing(job: BatchJob) -> Report:
    """Return the status that the queue shows, where the payload cannot report it itself."""
    minor = {MajorStatus.SUSPENDED: "HeldByBatch" if job.held else "SuspendedByBatch"}.get(job.status)
    if job.status is MajorStatus.UNKNOWN:
        minor = "UnknownToAgent"
    return _about(job.key, job.status, minor or "ResumedByBatch") | ({"log": job.detail} if job.detail else {})


def removed_for_holding(key: AttemptKey, reason: str, seconds: float) -> Report:
    """Return that it was on hold for too long."""
    return _about(key, MajorStatus.FAILED, "HeldByBatch") | {
        "log": f"on hold for {seconds:.0f} s, and removed: {reason or 'the batch system gives no reason'}"
    }


def exceeded(job: BatchJob, minor_status: str, told: str) -> Report:
    """Return that the watchdog stopped it from outside."""
    return _about(job.key, MajorStatus.TERMINATED, minor_status) | _figures(job) | {"log": told}


def killed(key: AttemptKey) -> Report:
    """Return that a person's order was carried out."""
    return _about(key, MajorStatus.TERMINATED, "KilledByUser") | {"lost": True}


def lost(held: Held, ending: Ending | None) -> Report:
    """Return the report about a job that ended without a word of its payload."""
    output = _last_lines(held.folder)
    if ending is None:
        told = "the batch system knows it no more"
        report = _about(held.key, MajorStatus.FAILED, "BatchJobVanished")
    else:
        words = [f"exit code {ending.exit_code}"] if ending.exit_code is not None else []
        words += [f"signal {ending.signal}"] if ending.signal is not None else []
        words += [ending.detail] if ending.detail else []
        told = f"its batch job ended: {', '.join(words) or 'nothing is known of how'}"
        status = MajorStatus.TERMINATED if ending.minor_status in BY_FORCE else MajorStatus.FAILED
        report = _about(held.key, status, ending.minor_status or "PayloadGaveNoReport") | _figures(ending)
    return report | {"lost": True, "log": f"{output}{told}"}


def _figures(job: BatchJob | Ending) -> Report:
    figures = {"cpu": job.cpu_seconds, "memory": job.memory_mb}
    return {name: round(value, 2) for name, value in figures.items() if value is not None}


def _last_lines(folder: str) -> str:
    """Return the end of a payload's output; it tells what kept the runner from reporting."""
    if not folder:
        return ""
    try:
        with (Path(folder) / "output.log").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return ""
    return "".join(f"{line}\n" for line in lines)


def _about(key: AttemptKey, status: MajorStatus, minor: str) -> Report:
    return {
        "t_id": key.job_id,
        "inst_id": key.instance_id,
        "attempt": key.attempt,
        "major_status": str(status),
        "minor_status": minor,
    }
