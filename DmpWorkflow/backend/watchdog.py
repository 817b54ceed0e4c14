"""When a payload has used too much. Pure: decides, and stops nothing."""

from dataclasses import dataclass

from DmpWorkflow.backend.run_file import RunLimits

EXCEEDING_MEMORY = "ExceedingMemory"
EXCEEDING_CPU_TIME = "ExceedingCpuTime"


@dataclass(frozen=True)
class Usage:
    """What a process tree has used: CPU seconds so far, MB resident now, and the most that was seen of the latter."""

    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    peak_mb: float = 0.0


def verdict(usage: Usage, limits: RunLimits) -> str | None:
    """Return the minor status with which to stop the payload, or None to let it go on.

    Memory counts as it is now: what was given back needs no stop. A limit of 0 means none.
    """
    if limits.memory_mb > 0 and usage.memory_mb >= limits.ratio_mem * limits.memory_mb:
        return EXCEEDING_MEMORY
    if limits.cpu_seconds > 0 and usage.cpu_seconds >= limits.ratio_cpu * limits.cpu_seconds:
        return EXCEEDING_CPU_TIME
    return None
