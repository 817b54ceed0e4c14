"""The backend for LSF: what IBM's and OpenLava have in common. Built from what OpenLava 4.0 prints.

An element of an array shows its index in its name only (``name[3]``), and is addressed as ``111[3]``.
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from DmpWorkflow.backend import batch_names
from DmpWorkflow.backend.command_backend import MOST_ARGUMENTS, CommandBackend, by_key, found_job, garbage, words_of
from DmpWorkflow.backend.commands import Output
from DmpWorkflow.backend.element_script import ElementWords
from DmpWorkflow.backend.interface import (
    KILLED,
    KILLED_FOR_TIME,
    NODE_LOST,
    REMOVED,
    AttemptKey,
    BatchJob,
    Ending,
    Submission,
)
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.parts import in_parts

WORDS = ElementWords(plain_id="$LSB_JOBID", element_id="$LSB_JOBID[$LSB_JOBINDEX]", index="LSB_JOBINDEX")
SUBMITTED = re.compile(r"Job <(?P<id>\d+)> is submitted")
NAME = re.compile(r"(?P<name>[^\[]*)(?:\[(?P<index>\d+)\])?")
# bjobs(1), "STAT"; None: it is over.
STATES: Mapping[str, MajorStatus | None] = {
    "PEND": MajorStatus.SUBMITTED,
    "PROV": MajorStatus.SUBMITTED,
    "WAIT": MajorStatus.SUBMITTED,
    "RUN": MajorStatus.RUNNING,
    "PSUSP": MajorStatus.SUSPENDED,
    "USUSP": MajorStatus.SUSPENDED,
    "SSUSP": MajorStatus.SUSPENDED,
    "UNKWN": MajorStatus.UNKNOWN,
    "ZOMBI": MajorStatus.UNKNOWN,
    "DONE": None,
    "EXIT": None,
}
DETAILS = {
    "PSUSP": "suspended by its owner or an administrator while pending",
    "UNKWN": "LSF has lost contact to its host",
    "ZOMBI": "it was killed while LSF had no contact to its host",
}
FIELDS = "jobid stat exit_code cpu_used mem run_time job_name delimiter='|'"
NOTHING = re.compile(r"No unfinished job found|No job found|is not found|No matching job found")
TALK = re.compile(r"(?i)please wait|still trying")
BY_BKILL, BY_RUN_LIMIT, BY_CPU_LIMIT = 130, 140, 152
SIGNAL_BASE, LAST_SIGNAL = 128, 64  # larger exit codes, like 255, are a script's own
UNITS = {"": 1 / 1024, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}  # OpenLava: bare KB
LIMIT_UNITS = {"KB": 1024.0, "MB": 1.0, "GB": 1 / 1024}  # of bsub -M, by LSF_UNIT_FOR_LIMITS
HISTORY = re.compile(  # a line may be wrapped instead of any blank
    r"^\w{3} \w{3} .{5,20}: +(?:(?P<done>Done successfully)|Exited(?!; job will be requeued))"
    r"(?: *with exit code *(?P<code>\d+)| *by signal *(?P<signal>\d+))?"
    r"(?P<rest>.*)",
    re.MULTILINE,
)
USED = re.compile(r"The CPU time used is *(?P<cpu>[\d.]+|unknown)")  # said of jobs that ran

logger = logging.getLogger(__name__)


class LsfBackend(CommandBackend):
    """Submits to LSF."""

    name: ClassVar[str] = "lsf"
    environment: ClassVar[dict[str, str]] = {"LSB_DISPLAY_YEAR": "N"}
    weather: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)not responding|still trying|please wait|cannot connect|is down|connection refused"
        r"|communication timeout|timeout on connect|server is not connected|LSF library call|service not registered"
        r"|daemon internal error|daemon cannot fork|query limit|no job Id can be used now"
    )
    at_limit: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)reached its job limit|job threshold|job slot limit|job group limit"
        r"|limit (?:is |has been )?(?:reached|exceeded)"
    )
    too_large: ClassVar[re.Pattern[str]] = re.compile(r"(?i)array index too large|array size")

    def programs(self) -> Sequence[str]:
        """Return the commands that are needed."""
        return "bsub", "bjobs", "bkill", "bhist"

    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit one job, or an array."""
        array = len(group) > 1
        output = self.commands.run(
            "bsub", "-J", f"{name}[1-{len(group)}]" if array else name, *self._options(group[0].needs),
            text=self.script(name, group, WORDS),
        )  # fmt: skip
        if output.code:
            raise self.complain(output)
        match = SUBMITTED.search(output.out)
        if match is None:
            raise garbage("bsub", output.out)
        return [f"{match['id']}[{number + 1}]" for number in range(len(group))] if array else [match["id"]]

    def _options(self, needs: BatchNeeds) -> list[str]:
        memory = needs.memory_mb * LIMIT_UNITS[self.site.hpc_memory_unit]
        options = ["-o", "/dev/null"]
        options += ["-M", str(math.ceil(memory))] if needs.memory_mb else []
        options += ["-c", _clock(needs.cpu_seconds)] if needs.cpu_seconds else []
        options += ["-W", _clock(needs.wall_seconds)] if needs.wall_seconds else []
        together = needs.cores > 1 and "span[" not in needs.requirements
        requirements = f"{needs.requirements} {'span[hosts=1]' if together else ''}".strip()
        options += ["-n", str(needs.cores)] if needs.cores > 1 else []
        options += ["-R", requirements] if requirements else []  # OpenLava takes one
        options += ["-q", needs.queue] if needs.queue else []
        options += ["-P", needs.account] if needs.account else []
        return options + words_of(needs.extra)

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the user's unfinished jobs."""
        output = self.commands.run("bjobs", "-noheader", "-o", FIELDS)
        return by_key(_job(row) for row in _rows(output))

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Ask bjobs, which knows them for about an hour, and of older ones bhist."""
        if not jobs:
            return {}
        numbers = sorted({batch_id.partition("[")[0] for batch_id in jobs.values()})
        known = all(number.isdigit() for number in numbers)
        found: dict[AttemptKey, Ending] = {}
        for part in in_parts(numbers, MOST_ARGUMENTS) if known else [[]]:
            output = self.commands.run("bjobs", "-a", "-noheader", "-o", FIELDS, *part)
            found |= {end.key: end for end in (_ending(row) for row in _rows(output)) if end}
        older = sorted({jobs[key].partition("[")[0] for key in jobs.keys() - found.keys()})
        for part in in_parts([number for number in older if number.isdigit()], MOST_ARGUMENTS):
            output = self.commands.run("bhist", "-l", "-n", "0", *part)
            if output.code and not NOTHING.search(f"{output.out} {output.err}"):
                logger.warning("%s: its log tells nothing of %d jobs", output.unavailable(), len(part))
            found |= {end.key: end for end in _history(output.out) if end.key not in found}
        return {key: ending for key, ending in found.items() if key in jobs}

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Kill; exit code 255 means nothing: finished, unknown, or even killed."""
        for part in in_parts([job.batch_id for job in jobs], MOST_ARGUMENTS):
            output = self.commands.run("bkill", *part)
            if output.code and self.weather.search(output.message):
                raise output.unavailable()


def _clock(seconds: int) -> str:
    """Return ``hours:minutes``, rounded up."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def _rows(output: Output) -> Iterator[list[str]]:
    """Yield the fields of each job. An exit code alone says nothing: unknown ids set it as well."""
    complaints = [line for line in output.err.splitlines() if line.strip() and not TALK.search(line)]
    if output.code and not (complaints and all(NOTHING.search(line) for line in complaints)):
        nothing = not complaints and NOTHING.search(output.out)
        if not nothing:
            raise output.unavailable()
    for line in output.out.splitlines():
        if not line.strip() or TALK.search(line) or NOTHING.search(line):
            continue
        fields = [field.strip() for field in line.split("|", 6)]
        if len(fields) != 7 or not fields[0].isdigit():
            raise garbage("bjobs", line)
        yield fields


def _member(job_name: str) -> tuple[str, int | None]:
    match = NAME.fullmatch(job_name)
    return (match["name"], int(match["index"]) if match["index"] else None) if match else ("", None)


def _job(row: Sequence[str]) -> BatchJob | None:
    number, word, _, cpu, memory, _, job_name = row
    if word in STATES and STATES[word] is None:
        return None
    name, index = _member(job_name)
    return found_job(
        name,
        index,
        f"{number}[{index}]" if index else number,
        STATES.get(word),
        word,
        detail=DETAILS.get(word, ""),
        held=word == "PSUSP",
        cpu_seconds=_number(cpu),
        memory_mb=_megabytes(memory),
    )


def _ending(row: Sequence[str]) -> Ending | None:
    _, word, code, cpu, memory, wall, job_name = row
    key = batch_names.member(*_member(job_name))
    if key is None or word not in ("DONE", "EXIT"):
        return None
    number = int(code) if code.isdigit() else (0 if word == "DONE" else None)
    ran = bool(_number(wall))
    return _ended(key, number, ran, f"LSF says {word} {code}", _number(cpu), _megabytes(memory))


def _ended(
    key: AttemptKey, code: int | None, ran: bool, detail: str, cpu: float | None, memory: float | None = None
) -> Ending:
    """Return what an exit code means.

    Without a code, a job was killed while it was pending, or ended while LSF had no contact to its host.
    """
    number = code - SIGNAL_BASE if code is not None and SIGNAL_BASE < code <= SIGNAL_BASE + LAST_SIGNAL else None
    minor = {
        None: NODE_LOST if ran else REMOVED,
        BY_BKILL: REMOVED,
        BY_RUN_LIMIT: KILLED_FOR_TIME,
        BY_CPU_LIMIT: KILLED_FOR_TIME,
    }.get(code, KILLED if number else "")
    return Ending(key, None if number else code, number, minor, cpu, memory, detail.strip())


def _history(text: str) -> Iterator[Ending]:
    """Yield the ends in ``bhist -l``, whose lines are wrapped at column 80 with 21 blanks before the rest."""
    unwrapped = re.sub(r"\n {21}", "", text)
    for block in re.split(r"^-{20,}$|(?=^Job (?:Id )?<)", unwrapped, flags=re.MULTILINE):
        named = re.search(r"^Job (?:Id )?<(?P<id>\d+)(?:\[\d+\])?>, Job Name <(?P<name>[^>]*)>", block, re.MULTILINE)
        key = batch_names.member(*_member(named["name"])) if named else None
        ends = list(HISTORY.finditer(block))
        if key and ends:
            yield _ended_by_history(key, ends[-1])  # earlier ones are of runs before it was queued again


def _ended_by_history(key: AttemptKey, end: re.Match[str]) -> Ending:
    code = int(end["code"]) if end["code"] else 0 if end["done"] else None
    code = SIGNAL_BASE + int(end["signal"]) if end["signal"] else code
    used = USED.search(end["rest"])
    ran = used is not None and "forced to exit" not in end["rest"]
    return _ended(key, code, ran, f"LSF's history says: {end.group()}", _number(used["cpu"]) if used else None)


def _number(text: str) -> float | None:
    """Return the number in ``57.6`` or ``1 second(s)``."""
    match = re.match(r"\d+(?:\.\d+)?", text)
    return float(match.group()) if match else None


def _megabytes(text: str) -> float | None:
    """Return the MB in ``6272`` (KB) or ``522 MBytes``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:bytes|b)?", text.strip().lower())
    return float(match[1]) * UNITS[match[2]] if match else None
