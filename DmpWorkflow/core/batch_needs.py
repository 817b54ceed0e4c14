"""What an instance needs of a batch system: the site's values, changed by the job's reserved variables. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.units import parse_clock, parse_memory

PREFIX = "BATCH_OVERRIDE_"
LONGEST_WORD = 4096  # characters; commands take a limited amount


@dataclass(frozen=True)
class BatchNeeds:
    """Limits and words for the batch system."""

    memory_mb: float
    cpu_seconds: int
    queue: str = ""
    requirements: str = ""
    extra: str = ""
    name: str = ""
    cores: int = 1
    wall_seconds: int = 0  # 0: as the CPU time
    account: str = ""
    image: str = ""

    @property
    def time_limit(self) -> int:
        """Seconds that the job may take by the clock, for systems that limit no CPU time."""
        return self.wall_seconds or self.cpu_seconds


def apply_overrides(site: BatchNeeds, variables: Mapping[str, str]) -> tuple[BatchNeeds, list[str]]:
    """Return what an instance with these variables needs, and warnings. Raises InvalidInput for a bad value.

    ``site`` is not changed, so that nothing of one instance reaches another.
    """
    given = {
        name.removeprefix(PREFIX): value for name, value in variables.items() if name.startswith(PREFIX) and value
    }
    for name, value in given.items():
        if len(value) > LONGEST_WORD or not value.isprintable():
            raise InvalidInput(f"{PREFIX}{name}: expected one line of at most {LONGEST_WORD} printable characters")
    needs, warnings = site, []
    if "REQUIREMENTS" in given:
        needs = replace(needs, requirements=given["REQUIREMENTS"])
    if extra := " ".join(given[name] for name in ("EXTRA", "EXTRAS") if name in given):
        needs = replace(needs, extra=f"{needs.extra} {extra}".strip())
    if "QUEUE" in given:
        needs = replace(needs, queue=given["QUEUE"])
    if "NAME" in given:
        needs = replace(needs, name=given["NAME"])
    if "MEMORY" in given:
        needs = replace(needs, memory_mb=parse_memory(given["MEMORY"]))
    if "CPUTIME" in given:
        needs = replace(needs, cpu_seconds=parse_clock(given["CPUTIME"]))
    if "SYSTEM" in given:
        warnings.append(f"{PREFIX}SYSTEM={given['SYSTEM']} is ignored: the site has one batch system")
    known = {"REQUIREMENTS", "EXTRA", "EXTRAS", "QUEUE", "NAME", "MEMORY", "CPUTIME", "SYSTEM"}
    warnings += [f"{PREFIX}{name} is not known and ignored" for name in sorted(set(given) - known)]
    return needs, warnings
