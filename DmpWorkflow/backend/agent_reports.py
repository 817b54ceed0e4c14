"""What an agent reports of its batch jobs, as the server takes it."""

from typing import Any

from DmpWorkflow.backend.interface import BY_FORCE, AttemptKey, BatchJob, Ending
from DmpWorkflow.backend.journal import Held
from DmpWorkflow.core.lifecycle import MajorStatus

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


def lost(held: Held, ending: Ending | None, output: str) -> Report:
    """Return that it ended without a word of its payload; ``output`` is the end of what that wrote."""
    if ending is None:
        told = "the batch system knows it no more"
        report = _about(held.key, MajorStatus.FAILED, "BatchJobVanished")
    else:
        told = f"its batch job ended: {ending.in_words}"
        status = MajorStatus.TERMINATED if ending.minor_status in BY_FORCE else MajorStatus.FAILED
        report = _about(held.key, status, ending.minor_status or "PayloadGaveNoReport") | _figures(ending)
    return report | {"lost": True, "log": f"{output}{told}"}


def _figures(job: BatchJob | Ending) -> Report:
    figures = {"cpu": job.cpu_seconds, "memory": job.memory_mb}
    return {name: round(value, 2) for name, value in figures.items() if value is not None}


def _about(key: AttemptKey, status: MajorStatus, minor: str) -> Report:
    return {
        "t_id": key.job_id,
        "inst_id": key.instance_id,
        "attempt": key.attempt,
        "major_status": str(status),
        "minor_status": minor,
    }
