"""The backend for Slurm, 20.11 or newer. Built from what Slurm 22.05 prints.

``squeue --json`` and ``sacct --json`` are slow or wrong in versions that are in use; the delimited forms are not.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from DmpWorkflow.backend import batch_names
from DmpWorkflow.backend.command_backend import (
    MOST_ARGUMENTS,
    CommandBackend,
    by_key,
    found_elements,
    found_job,
    garbage,
    words_of,
)
from DmpWorkflow.backend.element_script import ElementWords
from DmpWorkflow.backend.interface import (
    KILLED,
    KILLED_FOR_MEMORY,
    KILLED_FOR_TIME,
    NODE_LOST,
    NOT_STARTED,
    REMOVED,
    AttemptKey,
    BatchJob,
    Ending,
    Submission,
)
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.parts import in_parts

WORDS = ElementWords(
    plain_id="$SLURM_JOB_ID",
    element_id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
    index="SLURM_ARRAY_TASK_ID",
)
WAITS, RUNS, STANDS, NOBODY_KNOWS = (
    MajorStatus.SUBMITTED,
    MajorStatus.RUNNING,
    MajorStatus.SUSPENDED,
    MajorStatus.UNKNOWN,
)
# https://slurm.schedmd.com/squeue.html, "Job state codes"; None: it is over, and only passes through the queue.
STATES: Mapping[str, MajorStatus | None] = {
    "PENDING": WAITS, "CONFIGURING": WAITS, "REQUEUED": WAITS, "REQUEUE_FED": WAITS, "REQUEUE_HOLD": STANDS,
    "SPECIAL_EXIT": STANDS, "RESV_DEL_HOLD": STANDS, "RUNNING": RUNS, "COMPLETING": RUNS, "SIGNALING": RUNS,
    "STAGE_OUT": RUNS, "RESIZING": RUNS, "STOPPED": STANDS, "SUSPENDED": STANDS, "POWER_UP_NODE": WAITS,
    "UPDATE_DB": RUNS, "EXPEDITING": WAITS, "COMPLETED": None, "FAILED": None, "CANCELLED": None, "TIMEOUT": None,
    "OUT_OF_MEMORY": None, "NODE_FAIL": None, "BOOT_FAIL": None, "DEADLINE": None, "PREEMPTED": None, "REVOKED": None,
    "LAUNCH_FAILED": None, "RECONFIG_FAIL": None,
}  # fmt: skip
ENDS = {
    "TIMEOUT": KILLED_FOR_TIME,
    "DEADLINE": KILLED_FOR_TIME,
    "OUT_OF_MEMORY": KILLED_FOR_MEMORY,
    "NODE_FAIL": NODE_LOST,
    "BOOT_FAIL": NODE_LOST,
    "LAUNCH_FAILED": NOT_STARTED,
    "CANCELLED": REMOVED,
    "REVOKED": REMOVED,
    "PREEMPTED": KILLED,
}
# Reasons for which a pending job waits until somebody does something.
STUCK = re.compile(
    r"(?i)held|PartitionConfig|BadConstraints|DependencyNeverSatisfied|Invalid|NotAllowed|PartitionNodeLimit"
    r"|PartitionTimeLimit|launch.failed|JobLaunchFailure|MaxRequeue|Max\w+Per(?:Job|Node)|(?:QOS|Assoc)Min"
)
NOT_LAUNCHED = 53  # the "signal" of a job whose folder or output file is not there
EXIT_CODE = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")  # and the signal
INDICES = re.compile(r"\[?(?P<list>[\d,:-]+)(?:%\d+)?\]?")


@dataclass(frozen=True)
class _Row:
    """A line of squeue: one job, or all elements of an array that wait."""

    raw_id: str
    array_id: str
    indices: str
    state: str
    reason: str
    name: str


class SlurmBackend(CommandBackend):
    """Submits to Slurm."""

    name: ClassVar[str] = "slurm"
    environment: ClassVar[dict[str, str]] = {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}
    weather: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)unable to contact|socket timed out|connection|zero bytes|unexpected message|slurm_persist_conn"
        r"|temporarily|try again|controller|resource limit|protocol authentication|munge"
    )
    # One text for all limits of an account; the line before it names the one, such as QOSMaxWallDurationPerJobLimit.
    at_limit: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)^(?!.*(?:Max\w+Per(?:Job|Node)|(?:QOS|Assoc)Min)).*"
        r"(?:too many jobs|MaxSubmitJob|GrpSubmit|job submit limit)"
    )
    too_large: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)invalid job array|batch script too large|pathname too long"
    )

    def programs(self) -> Sequence[str]:
        """Return the commands that are needed."""
        return "sbatch", "squeue", "scancel", "scontrol", "sacct"

    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit one job, or an array."""
        array = [f"--array=1-{len(group)}"] if len(group) > 1 else []
        output = self.commands.run(
            "sbatch", "--parsable", f"--job-name={name}", *array, *self._options(group[0].needs),
            text=self.script(name, group, WORDS),
        )  # fmt: skip
        if output.code:
            raise self.complain(output)
        batch_id = output.out.strip().partition(";")[0]
        if not batch_id.isdigit():
            raise garbage("sbatch", output.out)
        return [f"{batch_id}_{number + 1}" for number in range(len(group))] if array else [batch_id]

    def _options(self, needs: BatchNeeds) -> list[str]:
        options = {
            "partition": needs.queue,
            "constraint": needs.requirements,
            "account": needs.account,
            "mem": f"{math.ceil(needs.memory_mb)}M" if needs.memory_mb else "",
            "time": str(math.ceil(needs.time_limit / 60)) if needs.time_limit else "",
            "cpus-per-task": str(needs.cores) if needs.cores > 1 else "",
        }
        return [
            "--output=/dev/null", "--error=/dev/null", "--chdir=/", "--no-requeue", "--kill-on-invalid-dep=yes",
            *(f"--{name}={value}" for name, value in options.items() if value),
            *words_of(needs.extra),
        ]  # fmt: skip

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the user's jobs; arrays that wait take one line each, whatever their size."""
        output = self.commands.run("squeue", "-h", "-a", "-u", self.user, "-o", "%A|%F|%K|%T|%r|%j")
        if output.code:
            raise output.unavailable()
        return by_key(job for row in _rows(output.out) for job in _jobs(row))

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Ask the accounting if there is one, and the controller, which remembers for some minutes."""
        if not jobs:
            return {}
        found = self._accounted(jobs)
        if jobs.keys() - found.keys():
            found = self._remembered() | found
        return {key: ending for key, ending in found.items() if key in jobs}

    def _accounted(self, jobs: Mapping[AttemptKey, str]) -> dict[AttemptKey, Ending]:
        fields = "JobID,State,ExitCode,TotalCPU,MaxRSS,ReqMem,JobName"  # the name last: it may contain any character
        ids = {batch_id.partition("_")[0] for batch_id in jobs.values()}  # whole arrays: see MOST_IDS
        known = len(ids) <= MOST_IDS and all(number.isdigit() for number in ids)
        since = ["-j", ",".join(sorted(ids))] if known else ["-u", self.user, "-S", "now-2days"]
        output = self.commands.run("sacct", "-n", "-P", "-o", fields, *since)
        if output.code and "accounting storage is disabled" in output.message.lower():
            return {}
        if output.code:
            raise output.unavailable()
        return _accounted(output.out)

    def _remembered(self) -> dict[AttemptKey, Ending]:
        output = self.commands.run("scontrol", "-o", "show", "job")
        if output.code:
            raise output.unavailable()
        ours = (
            match for match in REMEMBERED.finditer(output.out) if match["user"] == str(os.geteuid())
        )  # names are free
        endings = (ending for match in ours for ending in _remembered(match))
        return {ending.key: ending for ending in endings}

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Cancel; scancel is silent about those that are over."""
        for part in in_parts([job.batch_id for job in jobs], MOST_ARGUMENTS):
            output = self.commands.run("scancel", "--quiet", *part)
            if output.code and self.weather.search(output.message):
                raise output.unavailable()

    def measure(self, jobs: Sequence[BatchJob]) -> Mapping[AttemptKey, BatchJob]:
        """Ask sstat, which knows the jobs of this moment; without its plugin nothing is known."""
        by_id = {job.batch_id: job for job in jobs}
        measured = {job.key: job for job in jobs}
        for part in in_parts(list(by_id), MOST_ARGUMENTS):
            output = self.commands.run("sstat", "-n", "-P", "-a", "-o", "JobID,AveCPU,MaxRSS", "-j", ",".join(part))
            for line in output.out.splitlines():
                step, cpu, memory = [*line.split("|"), "", ""][:3]
                job = by_id.get(step.partition(".")[0])
                if job and step.endswith(".batch"):
                    measured[job.key] = job._replace(cpu_seconds=_seconds(cpu), memory_mb=_megabytes(memory))
        return measured


# Ids in one call of sacct; beyond that all of the last days is the smaller question. Asked for one element of an
# array that was cancelled while it waited, it tells nothing; asked for the array, it does.
MOST_IDS = 1000
REMEMBERED = re.compile(
    r"^JobId=(?P<id>\d+) (?:ArrayJobId=(?P<array>\d+) ArrayTaskId=(?P<index>\S+) )?"
    r"(?:(?:HetJob|ArrayTaskThrottle)\S+ )*"
    r"JobName=(?P<name>dwf-\S+) UserId=[^(\s]*\((?P<user>\d+)\).*?"
    r"\bJobState=(?P<state>\w+) Reason=(?P<reason>.*?) Dependency=.*?"
    r"\bExitCode=(?P<code>\d+):(?P<signal>\d+)",
    re.MULTILINE,
)


def _rows(text: str) -> Iterator[_Row]:
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) != 6 or not fields[0].isdigit():
            raise garbage("squeue", line)
        yield _Row(*fields)


def _jobs(row: _Row) -> Iterator[BatchJob | None]:
    if not row.name.startswith(batch_names.PREFIX) or (row.state in STATES and STATES[row.state] is None):
        return
    status = STATES.get(row.state)
    held = status is STANDS and row.state not in ("SUSPENDED", "STOPPED")
    if status is WAITS and STUCK.search(row.reason):
        status, held = STANDS, True
    detail = row.reason if row.reason not in ("None", "") else ""
    if row.indices in ("N/A", ""):
        yield found_job(row.name, None, row.raw_id, status, row.state, detail=detail, held=held)
        return
    indices = _indices(row.indices)
    yield from found_elements(row.name, f"{row.array_id}_", indices, status, row.state, detail=detail, held=held)


def _indices(text: str) -> Iterator[int]:
    """Yield the elements in ``3``, ``[3-20%2]`` or ``1-9:2,12``."""
    match = INDICES.fullmatch(text)
    try:
        yield from batch_names.elements(match["list"] if match else text)
    except ValueError:
        raise garbage("squeue", text) from None


def _accounted(text: str) -> dict[AttemptKey, Ending]:
    """Return endings by the lines of jobs, with the figures of their batch steps."""
    endings: dict[tuple[str, int | None], Ending] = {}
    for line in text.splitlines():
        fields = line.split("|", 6)
        if len(fields) != 7:
            raise garbage("sacct", line)
        batch_id, state, code, cpu, memory, requested, name = fields
        job_id, _, step = batch_id.partition(".")
        number, _, list_ = job_id.partition("_")
        for index in _indices(list_) if list_ else [None]:
            place = number, index
            if step == "batch" and place in endings:
                endings[place] = _with_figures(endings[place], cpu, memory)
            elif not step and (ending := _ending(name, index, state, code)):
                told = f"{ending.detail}, memory {requested}"
                endings[place] = replace(ending, cpu_seconds=_seconds(cpu), detail=told)
    return {ending.key: ending for ending in endings.values()}


def _with_figures(ending: Ending, cpu: str, memory: str) -> Ending:
    return replace(ending, cpu_seconds=_seconds(cpu) or ending.cpu_seconds, memory_mb=_megabytes(memory))


def _remembered(match: re.Match[str]) -> Iterator[Ending]:
    for index in _indices(match["index"]) if match["index"] else [None]:
        ending = _ending(match["name"], index, match["state"], f"{match['code']}:{match['signal']}")
        if ending:
            yield replace(ending, detail=f"{ending.detail} {match['reason']}")


def _ending(name: str, index: int | None, state: str, code: str) -> Ending | None:
    """Return how it ended; None for what is not ours or not over. ``code`` is ``exit code:signal``."""
    word = state.partition(" ")[0].rstrip("+")  # CANCELLED by 1000
    if word in STATES and STATES[word] is not None:
        return None
    key = batch_names.member(name, index)
    if key is None:
        return None
    codes = EXIT_CODE.fullmatch(code)
    if codes is None:
        raise garbage("sacct", f"{state} {code}")
    exit_code, number = int(codes[1]), int(codes[2] or 0)
    if word == "FAILED" and (number == NOT_LAUNCHED or not (exit_code or number)):  # 0:0: its constraints are bad
        told = f"Slurm says {state} {code}: it could not be started (its work folder, its constraints)"
        return Ending(key, minor_status=NOT_STARTED, detail=told)
    minor = ENDS.get(word, KILLED if number else "")
    known_code = exit_code if word in ("COMPLETED", "FAILED") and not number else None
    known_signal = number if word == "FAILED" and number else None
    return Ending(key, known_code, known_signal, minor, detail=f"Slurm says {state}")


def _seconds(text: str) -> float | None:
    """Return the seconds in ``[DD-[HH:]]MM:SS[.mmm]``."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _megabytes(text: str) -> float | None:
    """Return the MB (1024 KB) in ``5312K``, ``1.20G``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text.strip())
    if match is None:
        return None
    factor = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
    return float(match[1]) * factor[match[2]]
