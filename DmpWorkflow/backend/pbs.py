"""The backend for OpenPBS and PBS Professional. Built from what OpenPBS 23.06 prints.

qstat's JSON is not valid for every job name and differs between versions; its lines of text do not.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from DmpWorkflow.backend import batch_names
from DmpWorkflow.backend.command_backend import (
    MOST_ARGUMENTS,
    CommandBackend,
    LimitReached,
    Refused,
    by_key,
    found_job,
    garbage,
    words_of,
)
from DmpWorkflow.backend.commands import Output
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

WORDS = ElementWords(plain_id="$PBS_JOBID", element_id="$PBS_JOBID", index="PBS_ARRAY_INDEX")
SUBMITTED = re.compile(r"(?P<id>\d+)(?P<array>\[\])?(?P<server>\.\S+)?")
ELEMENT = re.compile(r"(?P<id>\d+)(?:\[(?P<index>\d*)\])?(?P<server>\.\S+)?")
# qstat(1), "Job states"; None: it is over, and only the history shows it.
STATES: Mapping[str, MajorStatus | None] = {
    "Q": MajorStatus.SUBMITTED,
    "T": MajorStatus.SUBMITTED,
    "W": MajorStatus.SUBMITTED,
    "B": MajorStatus.RUNNING,
    "R": MajorStatus.RUNNING,
    "E": MajorStatus.RUNNING,
    "H": MajorStatus.SUSPENDED,
    "S": MajorStatus.SUSPENDED,
    "U": MajorStatus.SUSPENDED,
    "M": None,
    "F": None,
    "X": None,
}
NEVER = "Can Never Run"
UNKNOWN_ID, FINISHED_ID = 153, 35
SERVER_DOWN, NO_SERVER, UNKNOWN_HOST, AT_LIMIT = 162, 255, 160, (38, 39)
# Exit_status of what PBS itself ended, by its job.h; other negative ones are failures to start.
ENDED: Mapping[int, str] = {
    -29: KILLED_FOR_TIME,  # walltime
    -28: KILLED_FOR_TIME,  # cput
    -27: KILLED_FOR_MEMORY,  # mem
    -26: KILLED_FOR_MEMORY,  # vmem
    -25: KILLED,  # more CPUs than ncpus, on the whole
    -24: KILLED,  # more CPUs than ncpus, for a moment
    -6: NODE_LOST,  # aborted as the node's daemon started anew
    -5: NODE_LOST,
    -4: NODE_LOST,
}
TERMINATED_SUBSTATE = "91"
SIGNAL_BASE = 256  # of a job that a signal ended; a shell's own 128 + N stays as it is
UNITS = {"b": 1 / 1024**2, "kb": 1 / 1024, "mb": 1.0, "gb": 1024.0, "tb": 1024.0**2}
WANTED = re.compile(
    r"Job Id: (?P<id>\S+)"
    r"|    (?P<key>Job_Name|Job_Owner|job_state|comment|Hold_Types|Exit_status|substate"
    r"|resources_used\.(?:cput|mem|walltime)|Resource_List\.cput|array) = (?P<value>.*)"
)


class PbsBackend(CommandBackend):
    """Submits to PBS."""

    name: ClassVar[str] = "pbs"
    weather: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)cannot connect to server|connection (?:refused|reset)|communication failure|timed? ?out|end of file"
        r"|server shutting down|try again|no free connections|connection table full"
    )
    at_limit: ClassVar[re.Pattern[str]] = re.compile(r"(?i)would exceed .* limit|maximum number of jobs")
    too_large: ClassVar[re.Pattern[str]] = re.compile(r"(?i)array job exceeds")

    def programs(self) -> Sequence[str]:
        """Return the commands that are needed."""
        return "qsub", "qstat", "qdel"

    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit one job, or an array; PBS takes no array of one element, and none that must not run again.

        An element that PBS starts again after its node was lost is refused by the server. With ``-f``, qsub does it
        all itself: its process in the background would go on with what was given up for taking too long.
        """
        array = ["-r", "y", "-J", f"1-{len(group)}"] if len(group) > 1 else []
        output = self.commands.run(
            "qsub", "-f", "-N", name, *(array or ["-r", "n"]), *self._options(group[0].needs),
            text=self.script(name, group, WORDS),
        )  # fmt: skip
        if output.code == UNKNOWN_HOST and "@" in group[0].needs.queue:
            raise Refused(f"qsub: {output.message}")
        if output.code:
            raise self.complain(output)
        match = SUBMITTED.fullmatch(output.out.strip().splitlines()[-1] if output.out.strip() else "")
        if match is None or bool(match["array"]) != bool(array):
            raise garbage("qsub", output.out)
        number, server = match["id"], match["server"] or ""
        return [f"{number}[{index + 1}]{server}" for index in range(len(group))] if array else [f"{number}{server}"]

    def complain(self, output: Output) -> Exception:
        """Return the error for a submission that failed; PBS has exit codes of its own for bad weather."""
        if output.code in AT_LIMIT:
            return LimitReached(f"{output.command}: {output.message}")
        if output.code == SERVER_DOWN:
            return output.unavailable()
        return super().complain(output)

    def _options(self, needs: BatchNeeds) -> list[str]:
        """Return options; ``select=`` in the requirements stands for cores and memory as well."""
        chunk = f"select=1:ncpus={needs.cores}" + (f":mem={math.ceil(needs.memory_mb)}mb" if needs.memory_mb else "")
        limits = [] if re.search(r"\b(?:select|nodes|ncpus)\s*=", needs.requirements) else [chunk]
        limits += [f"cput={needs.cpu_seconds}"] if needs.cpu_seconds else []
        limits += [f"walltime={needs.wall_seconds}"] if needs.wall_seconds else []
        limits += [needs.requirements] if needs.requirements else []
        options = ["-S", "/bin/bash", "-o", "/dev/null", "-e", "/dev/null", "-j", "oe", "-k", "oed"]
        options += [word for limit in limits for word in ("-l", limit)]
        options += ["-q", needs.queue] if needs.queue else []
        options += ["-A", needs.account] if needs.account else []
        return options + words_of(needs.extra)

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the user's jobs and array elements."""
        output = self.commands.run("qstat", "-t", "-f", "-w")
        if output.code:
            raise output.unavailable()
        return by_key(_job(record) for record in _records(output) if self._is_ours(record))

    def _is_ours(self, record: Mapping[str, str]) -> bool:
        return record.get("Job_Owner", "").partition("@")[0] == self.user

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Ask the server's history; without one (``job_history_enable``) it knows nothing."""
        if not jobs:
            return {}
        matches = [ELEMENT.fullmatch(batch_id) for batch_id in jobs.values()]
        known = [match for match in matches if match]
        ids = sorted({f"{match['id']}{'[]' if match['index'] else ''}{match['server'] or ''}" for match in known})
        found: dict[AttemptKey, Ending] = {}
        for part in in_parts(ids, MOST_ARGUMENTS) if len(known) == len(jobs) else [[]]:
            output = self.commands.run("qstat", "-x", "-t", "-f", "-w", *part)
            if output.code not in (0, UNKNOWN_ID, FINISHED_ID):
                raise output.unavailable()
            endings = (_ending(record) for record in _records(output) if self._is_ours(record))
            found |= {ending.key: ending for ending in endings if ending and ending.key in jobs}
        return found

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Delete; several ids give the first error only, and the others are deleted all the same."""
        for part in in_parts([job.batch_id for job in jobs], MOST_ARGUMENTS):
            output = self.commands.run("qdel", *part)
            if output.code in (SERVER_DOWN, NO_SERVER):
                raise output.unavailable()


def _records(output: Output) -> Iterator[dict[str, str]]:
    """Yield the attributes that matter of each job in the answer of ``qstat -f``."""
    record: dict[str, str] = {}
    lines = output.out.splitlines()
    if lines and not lines[0].startswith("Job Id: "):
        raise garbage("qstat", lines[0])
    for line in lines:
        match = WANTED.match(line)
        if match is None:
            continue
        if match["id"]:
            if record:
                yield record
            record = {"id": match["id"]}
        else:
            record.setdefault(match["key"], match["value"])
    if record:
        yield record


def _member(record: Mapping[str, str]) -> AttemptKey | None:
    """Return whose record it is; None for an array as a whole."""
    match = ELEMENT.fullmatch(record["id"])
    if match is None or match["index"] == "":
        return None
    return batch_names.member(record.get("Job_Name", ""), int(match["index"]) if match["index"] else None)


def _job(record: Mapping[str, str]) -> BatchJob | None:
    key, word = _member(record), record.get("job_state", "")
    if key is None or (word in STATES and STATES[word] is None):
        return None
    status = STATES.get(word)
    comment = record.get("comment") or (f"Hold_Types = {record.get('Hold_Types', '?')}" if word == "H" else "")
    held = word == "H" or (word == "Q" and comment.startswith(NEVER))
    return found_job(
        key.name,
        None,
        record["id"],
        MajorStatus.SUSPENDED if held else status,
        word,
        detail=comment,
        held=held,
        cpu_seconds=_seconds(record.get("resources_used.cput")),
        memory_mb=_megabytes(record.get("resources_used.mem")),
    )


def _ending(record: Mapping[str, str]) -> Ending | None:
    key, word = _member(record), record.get("job_state", "")
    if key is None or word not in STATES or STATES[word] is not None:
        return None
    text = record.get("Exit_status", "")
    code = int(text) if re.fullmatch(r"-?\d+", text) else None
    number = code - SIGNAL_BASE if code is not None and code > SIGNAL_BASE else None
    minor = _minor(code, number, record)
    plain = code if code is not None and 0 <= code < SIGNAL_BASE and minor != REMOVED else None
    return Ending(
        key,
        exit_code=plain,
        signal=number,
        minor_status=minor,
        cpu_seconds=_seconds(record.get("resources_used.cput")),
        memory_mb=_megabytes(record.get("resources_used.mem")),
        detail=f"PBS says Exit_status {text or 'nothing'}: {record.get('comment', '')}",
    )


def _minor(code: int | None, number: int | None, record: Mapping[str, str]) -> str:
    if code is not None and code < 0:
        return ENDED.get(code, NOT_STARTED)
    # An element that was deleted before it ran has Exit_status 1, and the substate of its array.
    if code is None or not _has_run(record) or (number and record.get("substate") == TERMINATED_SUBSTATE):
        return REMOVED
    if number is None:
        return ""
    limit, wall = _seconds(record.get("Resource_List.cput")), _seconds(record.get("resources_used.walltime"))
    # The CPU time is sampled and may say 0; but only PBS itself sends what is told as 256 + N.
    return KILLED_FOR_TIME if limit and wall is not None and wall >= limit else KILLED


def _has_run(record: Mapping[str, str]) -> bool:
    return "resources_used.walltime" in record


def _seconds(text: str | None) -> float | None:
    """Return the seconds in ``HH:MM:SS``."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text or "")
    return float(int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])) if match else None


def _megabytes(text: str | None) -> float | None:
    """Return the MB (1024 kb) in ``5312kb``."""
    match = re.fullmatch(r"(\d+)([kmgt]?b)", text or "")
    return float(match[1]) * UNITS[match[2]] if match else None
