"""The backend for Grid Engine: Son of Grid Engine, and its relatives. Built from what version 8.1.9 prints."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from lxml import etree

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
    AttemptKey,
    BatchJob,
    Ending,
    Submission,
)
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.parts import in_parts

WORDS = ElementWords(plain_id="$JOB_ID", element_id="$JOB_ID.$SGE_TASK_ID", index="SGE_TASK_ID")
SUBMITTED = re.compile(r"(?P<id>\d+)(?:\.(?P<first>\d+)-\d+:\d+)?")
USAGE = re.compile(r"usage\s+(?P<task>\d+):\s+cpu=(?P<cpu>[\d:]+)")
STATE = re.compile(r"[dEhqrRsSNtTwzPm]+")  # qstat(1): d(eletion) E(rror) h(old) q(ueued) r(unning) R(estarted) ...
TIME_KILL = 37  # "qmaster enforced h_rt, h_cpu, or h_vmem limit"
THROUGH_SIGNAL, ASSUMEDLY_AFTER_JOB = 17, 100  # it was killed: by qdel, by a limit, or by somebody
BY_SIGNAL = (TIME_KILL, THROUGH_SIGNAL, ASSUMEDLY_AFTER_JOB)
# Failures of starting: folder, shell, prolog; see sge_status(5). After 12 to 16, 24, 25 and 30 its exit code counts.
BEFORE_START = frozenset({*range(1, 12), *range(26, 30), *range(31, 37), 38})
LOST = range(18, 24)  # the node's daemons know no end of it: they died, or do not know the job any more
COARSE = 1  # second by which the kernel's count of CPU time and the accounting's differ
DAYS = "3"  # of the history that are asked for
NO_HISTORY = re.compile(r"not found|no jobs running since startup")  # of our jobs; there is no accounting file
UNITS = {"B": 1.0, "K": 1024.0, "M": 1024.0**2, "G": 1024.0**3, "T": 1024.0**4}


class SgeBackend(CommandBackend):
    """Submits to Grid Engine."""

    name: ClassVar[str] = "sge"
    environment: ClassVar[dict[str, str]] = {"SGE_SINGLE_LINE": "1"}
    weather: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)unable to (?:send|contact|reach|initialize environment)|commlib|got (?:select|send|read) error"
        r"|connection refused|timeout"
        r"|jobs are allowed per user|job rejected: only \d+ jobs are allowed|failed receiving|try again"
    )
    too_large: ClassVar[re.Pattern[str]] = re.compile(r"more than \d+ tasks")

    def programs(self) -> Sequence[str]:
        """Return the commands that are needed."""
        return "qsub", "qstat", "qdel", "qacct"

    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit one job, or an array."""
        array = ["-t", f"1-{len(group)}"] if len(group) > 1 else []
        output = self.commands.run(
            "qsub", "-terse", "-N", name, *array, *self._options(group[0].needs), text=self.script(name, group, WORDS)
        )
        if output.code:
            raise self.complain(output)
        match = SUBMITTED.fullmatch(output.out.strip().splitlines()[-1] if output.out.strip() else "")
        if match is None:
            raise garbage("qsub", output.out)
        return [f"{match['id']}.{number + 1}" for number in range(len(group))] if array else [match["id"]]

    def _options(self, needs: BatchNeeds) -> list[str]:
        """Return options; limits are of one slot, so that a job of several cores gets what it asks for."""
        limits = {
            "h_vmem": f"{math.ceil(needs.memory_mb / needs.cores)}M" if needs.memory_mb else "",
            "h_cpu": str(math.ceil(needs.cpu_seconds / needs.cores)) if needs.cpu_seconds else "",
            "h_rt": str(needs.wall_seconds) if needs.wall_seconds else "",
        }
        options: list[str] = ["-S", "/bin/bash", "-o", "/dev/null", "-j", "y", "-r", "n", "-notify", "-w", "e"]
        for limit, value in limits.items():
            options += ["-l", f"{limit}={value}"] if value else []
        options += ["-l", needs.requirements] if needs.requirements else []
        options += ["-q", needs.queue] if needs.queue else []
        options += ["-P", needs.account] if needs.account else []
        options += ["-pe", self.site.hpc_parallel, str(needs.cores)] if needs.cores > 1 else []
        return options + words_of(needs.extra)

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the user's jobs; what waits of an array takes one entry."""
        output = self.commands.run("qstat", "-u", self.user, "-xml")
        if output.code:
            raise output.unavailable()
        return by_key(job for entry in _entries(output.out) for job in _jobs(entry))

    def explain(self, jobs: Sequence[BatchJob]) -> Mapping[AttemptKey, str]:
        """Return why jobs are in error; qstat tells it of single jobs only."""
        numbers = sorted({job.batch_id.partition(".")[0] for job in jobs})
        reasons: dict[str, str] = {}
        for part in in_parts(numbers, MOST_ARGUMENTS):
            output = self.commands.run("qstat", "-j", ",".join(part))
            number = ""
            for line in output.out.splitlines():
                label, _, value = line.partition(":")
                if label == "job_number":
                    number = value.strip()
                elif label.startswith("error reason"):
                    reasons.setdefault(number, value.strip())
        return {job.key: reasons.get(job.batch_id.partition(".")[0], job.detail) for job in jobs}

    def measure(self, jobs: Sequence[BatchJob]) -> Mapping[AttemptKey, BatchJob]:
        """Ask for CPU times; of memory, only the virtual one is told, which means little."""
        measured = {job.key: job for job in jobs}
        by_id = {job.batch_id: job for job in jobs}
        for part in in_parts(sorted({job.batch_id.partition(".")[0] for job in jobs}), MOST_ARGUMENTS):
            output = self.commands.run("qstat", "-j", ",".join(part))
            number = ""
            for line in output.out.splitlines():
                number = line.split()[1] if line.startswith("job_number:") else number
                usage = USAGE.match(line)
                job = by_id.get(f"{number}.{usage['task']}", by_id.get(number)) if usage else None
                if usage and job:
                    clock = [int(field) for field in usage["cpu"].split(":")]
                    seconds = sum(
                        field * unit for field, unit in zip(reversed(clock), (1, 60, 3600, 86400), strict=False)
                    )
                    measured[job.key] = job._replace(cpu_seconds=float(seconds))
        return measured

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Read the accounting of all our jobs, since it can be asked for one number or one pattern only."""
        if not jobs:
            return {}
        output = self.commands.run("qacct", "-o", self.user, "-d", DAYS, "-j", f"{batch_names.PREFIX}*")
        if output.code and not NO_HISTORY.search(output.out + output.err):
            raise output.unavailable()
        endings = (_ending(record) for record in _records(output.out))
        return {ending.key: ending for ending in endings if ending and ending.key in jobs}

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Delete; an exit code other than 0 may only mean that some were over."""
        for part in in_parts([job.batch_id for job in jobs], 1000):
            output = self.commands.run("qdel", ",".join(part))
            if output.code and self.weather.search(f"{output.out} {output.err}"):
                raise output.unavailable()


def _entries(text: str) -> Iterator[Mapping[str, str]]:
    """Yield the values of each job_list in the answer of ``qstat -xml``."""
    try:
        root = etree.fromstring(
            text.encode(), etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, recover=False)
        )
    except etree.XMLSyntaxError:
        raise garbage("qstat", text) from None
    if root.tag != "job_info":
        raise garbage("qstat", text)
    for entry in root.iter("job_list"):
        yield {str(child.tag): child.text or "" for child in entry}


def _jobs(entry: Mapping[str, str]) -> Iterator[BatchJob | None]:
    name, number, word = entry.get("JB_name", ""), entry.get("JB_job_number", ""), entry.get("state", "")
    if not name.startswith(batch_names.PREFIX):
        return
    status, held = _status(word)
    detail = f"state {word}" if held else ""
    if tasks := entry.get("tasks"):
        yield from found_elements(name, f"{number}.", _tasks(tasks), status, word, detail=detail, held=held)
    else:
        yield found_job(name, None, number, status, word, detail=detail, held=held)


def _status(word: str) -> tuple[MajorStatus | None, bool]:
    """Return the status for a state such as ``qw``, ``hRq`` or ``Eqw``, and whether it needs somebody's help."""
    if not STATE.fullmatch(word):
        return None, False
    if "d" in word:
        return MajorStatus.RUNNING, False  # until it is really gone
    if "E" in word:
        return MajorStatus.SUSPENDED, True
    if set("sSTNP") & set(word):
        return MajorStatus.SUSPENDED, False
    if set("rt") & set(word):  # hr: the hold is for the time after it, should it wait again
        return MajorStatus.RUNNING, False
    if "h" in word:
        return MajorStatus.SUSPENDED, True
    return (MajorStatus.SUBMITTED, False) if set("wq") & set(word) else (None, False)


def _tasks(text: str) -> Iterator[int]:
    """Yield the tasks in ``3``, ``3-20:1`` or ``1,5-9:2``."""
    try:
        yield from batch_names.elements(text)
    except ValueError:
        raise garbage("qstat", text) from None


def _records(text: str) -> Iterator[dict[str, str]]:
    """Yield the records of ``qacct -j``: lines of name and value, after a line of =."""
    for block in re.split(r"^=+$", text, flags=re.MULTILINE)[1:]:
        yield {name: value.strip() for name, _, value in (line.partition(" ") for line in block.strip().splitlines())}


def _ending(record: Mapping[str, str]) -> Ending | None:
    task = record.get("taskid", "")
    key = batch_names.member(record.get("jobname", ""), int(task) if task.isdigit() else None)
    if key is None:
        return None
    failed, code = _first_number(record.get("failed")), _first_number(record.get("exit_status"))
    minor = _minor(failed, code, record)
    detail = f"Grid Engine says failed {record.get('failed', '')}, exit_status {record.get('exit_status', '')}"
    by_signal = code > 128 and failed in BY_SIGNAL
    return Ending(
        key,
        exit_code=None if by_signal or minor in (NOT_STARTED, NODE_LOST) else code,
        signal=code - 128 if by_signal else None,
        minor_status=minor,
        cpu_seconds=_amount(record.get("cpu")),
        memory_mb=_peak_mb(record),
        detail=re.sub(r"\s+", " ", detail),
    )


def _minor(failed: int, code: int, record: Mapping[str, str]) -> str:
    """Say what ended a job. A deletion, h_cpu and somebody's signal look alike but for the figures."""
    if failed in BEFORE_START:
        return NOT_STARTED
    if failed in LOST:
        return NODE_LOST
    if failed not in BY_SIGNAL:
        return ""
    limits = dict(re.findall(r"\b([hs]_\w+)=(\w+)", record.get("category", "")))
    wall, cpu = _amount(record.get("ru_wallclock")) or 0.0, _amount(record.get("cpu")) or 0.0
    for spent, names in ((wall, ("h_rt", "s_rt")), (cpu, ("h_cpu", "s_cpu"))):
        given = [int(limits[name]) for name in names if limits.get(name, "").isdigit()]
        if any(spent >= limit - COARSE for limit in given):
            return KILLED_FOR_TIME
    if failed == TIME_KILL and "h_vmem" in limits:
        return KILLED_FOR_MEMORY
    return KILLED_FOR_TIME if failed == TIME_KILL else KILLED


def _first_number(text: str | None) -> int:
    match = re.match(r"\d+", text or "")
    return int(match.group()) if match else 0


def _amount(text: str | None) -> float | None:
    """Return seconds of ``1.990s``; bytes of ``609.391MB``."""
    match = re.match(r"(\d+(?:\.\d+)?)([BKMGTs]?)", text or "")
    return float(match[1]) * UNITS.get(match[2], 1.0) if match else None


def _peak_mb(record: Mapping[str, str]) -> float | None:
    """Return the peak of the largest process; ru_maxrss is in KB, and printed as if it were bytes."""
    peak = _amount(record.get("ru_maxrss"))
    return peak / 1024 if peak else None
