"""The backend for HTCondor, 9 or newer. Built from what HTCondor 23.9.6 prints.

Each job carries its name as the attribute ``DwfName``; the queue and the history are asked for that.
"""

import json
import math
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from DmpWorkflow.backend.command_backend import (
    MOST_ARGUMENTS,
    CommandBackend,
    Refused,
    by_key,
    found_job,
    garbage,
    words_of,
)
from DmpWorkflow.backend.commands import Output
from DmpWorkflow.backend.element_script import BATCH_ID_VARIABLE
from DmpWorkflow.backend.interface import (
    KILLED,
    KILLED_FOR_MEMORY,
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

SUBMITTED = re.compile(r"(?P<cluster>\d+)\.(?P<first>\d+) - (?P=cluster)\.(?P<last>\d+)")
# JobStatus; None: it is over, and only passes through the queue.
STATES: Mapping[int, MajorStatus | None] = {
    0: MajorStatus.SUBMITTED,  # unexpanded
    1: MajorStatus.SUBMITTED,
    2: MajorStatus.RUNNING,
    3: None,
    4: None,
    5: MajorStatus.SUSPENDED,
    6: MajorStatus.RUNNING,  # transferring output
    7: MajorStatus.SUSPENDED,
    8: MajorStatus.SUBMITTED,  # being materialised
}
IDLE, COMPLETED, HELD = 1, 4, 5
# Codes of holds that end a job for good: over its memory (cgroup), or over its allowed duration or execute duration.
MEMORY_HOLD, TIME_HOLDS = 34, (46, 47)
FIGURES = "RemoteUserCpu,RemoteSysCpu,ResidentSetSize_RAW"
OF_QUEUE = f"ClusterId,ProcId,DwfName,JobStatus,HoldReason,HoldReasonCode,{FIGURES}"
OF_HISTORY = (
    "ClusterId,ProcId,DwfName,JobStatus,RemoveReason,ExitCode,ExitBySignal,ExitSignal,LastJobStatus,"
    f"LastHoldReasonCode,DwfMemoryKb,{FIGURES}"
)
OURS = "DwfName =!= undefined"
NO_HISTORY = "No history file is defined"
MOST_SCANNED = "200000"  # records of the history, the youngest first
MOST_CLUSTERS = 1000  # in one expression, which is one argument; for more all of ours is the smaller question


class CondorBackend(CommandBackend):
    """Submits to HTCondor."""

    name: ClassVar[str] = "condor"
    runs_images: ClassVar[bool] = True
    environment: ClassVar[dict[str, str]] = {"_CONDOR_TOOL_DEBUG": "D_ERROR"}
    weather: ClassVar[re.Pattern[str]] = re.compile(
        r"(?i)can't find address|failed to connect|unable to connect|\(null\)|failed to (?:begin|commit) trans"
        r"|timed? ?out|authenticat|failed to fetch ads"
    )
    at_limit: ClassVar[re.Pattern[str]] = re.compile(r"(?i)MAX_JOBS|number of submitted jobs would exceed")

    def programs(self) -> Sequence[str]:
        """Return the commands that are needed."""
        return "condor_submit", "condor_q", "condor_rm", "condor_history"

    @property
    def _schedd(self) -> list[str]:
        """Return whom to ask: HPCextra is the schedd's name, as it was in the original."""
        return ["-name", self.site.hpc_extra] if self.site.hpc_extra else []

    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit all of the group as one cluster; HTCondor takes all or nothing."""
        extra = words_of(group[0].needs.extra.removeprefix(self.site.hpc_extra))
        text = self._description(group)
        output = self.commands.run("condor_submit", "-terse", *self._schedd, *extra, "-", text=text)
        if output.code:
            raise self.complain(output)
        match = SUBMITTED.search(output.out)
        if match is None or int(match["last"]) - int(match["first"]) + 1 != len(group):
            raise garbage("condor_submit", output.out)
        return [f"{match['cluster']}.{int(match['first']) + number}" for number in range(len(group))]

    def _description(self, group: Sequence[Submission]) -> str:
        needs = group[0].needs
        words = {
            "universe": "container" if needs.image else self.site.hpc_universe,
            "container_image": needs.image,
            "executable": "$(Script)",
            "arguments": "$(Element)",
            "initialdir": "/",
            "should_transfer_files": "NO",
            "transfer_executable": "False",
            "environment": _environment(),
            "request_memory": str(math.ceil(needs.memory_mb)) if needs.memory_mb else "",
            "request_cpus": str(needs.cores),
            "requirements": needs.requirements,
            "accounting_group": needs.account,
            "+JobFlavour": f'"{needs.queue}"' if needs.queue else "",
            "periodic_remove": _limits(needs),
            "notification": "never",
            "job_max_vacate_time": "30",
            "+DwfMemoryKb": str(math.ceil(needs.memory_mb * 1024)) if needs.memory_mb else "",
            "batch_name": "$(Name)",
            "+DwfName": '"$(Name)"',
        }
        if any("\n" in value for value in words.values()):
            raise Refused("a value for the submit description has more than one line")
        lines = [f"{name} = {value}" for name, value in words.items() if value]
        items = [f"{item.key.name} {item.element} {_literal(str(item.script))}" for item in group]
        return "\n".join([*lines, "queue Name Element Script from (", *items, ")", ""])

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        """Return the user's jobs."""
        ours = f'{OURS} && Owner == "{self.user}"'
        output = self.commands.run("condor_q", *self._schedd, "-json", "-attributes", OF_QUEUE, "-constraint", ours)
        return by_key(_job(ad) for ad in _ads(output))

    def endings(self, jobs: Mapping[AttemptKey, str]) -> Mapping[AttemptKey, Ending]:
        """Read the history, which has a job as soon as the queue has lost it."""
        if not jobs:
            return {}
        clusters = {batch_id.partition(".")[0] for batch_id in jobs.values()}
        wanted = f'{OURS} && Owner == "{self.user}"'  # anybody may give such a name
        if len(clusters) <= MOST_CLUSTERS and all(cluster.isdigit() for cluster in clusters):
            wanted += f" && ({' || '.join(f'ClusterId == {cluster}' for cluster in sorted(clusters))})"
        output = self.commands.run(
            "condor_history", *self._schedd, "-json", "-attributes", OF_HISTORY, "-scanlimit", MOST_SCANNED,
            "-constraint", wanted,
        )  # fmt: skip
        if output.code and NO_HISTORY in output.err:
            return {}
        endings = (_ending(ad) for ad in reversed(_ads(output)))  # so that the youngest of one name counts
        return {ending.key: ending for ending in endings if ending and ending.key in jobs}

    def cancel(self, jobs: Sequence[BatchJob]) -> None:
        """Remove; its exit code tells nothing of single jobs, so only what it says of the schedd counts."""
        for part in in_parts([job.batch_id for job in jobs], MOST_ARGUMENTS):
            output = self.commands.run("condor_rm", *self._schedd, *part)
            if output.code and self.weather.search(output.message):
                raise output.unavailable()


def _literal(text: str) -> str:
    """Return ``text`` such that HTCondor sees no macro in it."""
    return text.replace("$", "$(DOLLAR)")


def _environment() -> str:
    """Return what a login would set; jobs get nothing of it otherwise."""
    me = pwd.getpwuid(os.geteuid())
    values = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": me.pw_dir, "USER": me.pw_name, "LOGNAME": me.pw_name}
    values[BATCH_ID_VARIABLE] = "$(ClusterId).$(ProcId)"
    return f'"{" ".join(f"{name}={value}" for name, value in values.items())}"'


def _limits(needs: BatchNeeds) -> str:
    """Return the expression that removes a job; UNDEFINED counts as False. ``_removal`` tells what it was.

    HTCondor starts a job again whose node is lost; here a payload runs once per attempt.
    """
    killed = " || ".join(f"HoldReasonCode == {code}" for code in (MEMORY_HOLD, *TIME_HOLDS))
    tests = ["JobStatus == 1 && NumJobStarts >= 1", f"JobStatus == {HELD} && ({killed})"]
    if needs.wall_seconds:
        tests.append(f"JobStatus == 2 && time() - JobCurrentStartDate > {needs.wall_seconds}")
    if needs.cpu_seconds:
        tests.append(f"RemoteUserCpu + RemoteSysCpu > {needs.cpu_seconds}")
    if needs.memory_mb:
        tests.append("JobStatus == 2 && ResidentSetSize > DwfMemoryKb")
    return " || ".join(f"(({test}) =?= True)" for test in tests)


def _removal(ad: Mapping[str, Any]) -> str:
    """Say what removed a job."""
    reason = str(ad.get("RemoveReason", "")).upper()
    if "SYSTEM_PERIODIC" in reason:
        return KILLED
    if "PERIODICREMOVE" not in reason:
        return REMOVED
    if ad.get("LastJobStatus") == IDLE:
        return NODE_LOST
    if ad.get("LastJobStatus") == HELD:
        return KILLED_FOR_MEMORY if ad.get("LastHoldReasonCode") == MEMORY_HOLD else KILLED_FOR_TIME
    memory, limit = ad.get("ResidentSetSize_RAW"), ad.get("DwfMemoryKb")
    over = isinstance(memory, int | float) and isinstance(limit, int | float) and memory > limit
    return KILLED_FOR_MEMORY if over else KILLED_FOR_TIME


def _ads(output: Output) -> list[dict[str, Any]]:
    """Return the ClassAds in an answer; nothing at all means none."""
    if output.code:
        raise output.unavailable()
    try:
        ads = json.loads(output.out or "[]")
    except ValueError:
        raise garbage(output.command, output.out) from None
    if not isinstance(ads, list) or not all(isinstance(ad, dict) and "ClusterId" in ad for ad in ads):
        raise garbage(output.command, output.out)
    return ads


def _batch_id(ad: Mapping[str, Any]) -> str:
    return f"{ad['ClusterId']}.{ad.get('ProcId', 0)}"


def _figures(ad: Mapping[str, Any]) -> dict[str, Any]:
    """Return CPU seconds and the memory in MB, as far as they are numbers and not expressions."""
    spent = [ad.get(name) for name in ("RemoteUserCpu", "RemoteSysCpu")]
    memory = ad.get("ResidentSetSize_RAW")
    return {
        "cpu_seconds": sum(value for value in spent if isinstance(value, int | float)) or None,
        "memory_mb": memory / 1024 if isinstance(memory, int | float) else None,
    }


def _job(ad: Mapping[str, Any]) -> BatchJob | None:
    word = ad.get("JobStatus")
    status = STATES.get(word) if isinstance(word, int) else None
    if status is None and word in STATES:
        return None
    held = word == HELD
    detail = f"{ad.get('HoldReason', '')} (code {ad.get('HoldReasonCode', '?')})" if held else ""
    return found_job(
        str(ad.get("DwfName", "")), None, _batch_id(ad), status, str(word), detail=detail, held=held, **_figures(ad)
    )


def _ending(ad: Mapping[str, Any]) -> Ending | None:
    key = AttemptKey.from_name(str(ad.get("DwfName", "")))
    if key is None:
        return None
    if ad.get("JobStatus") != COMPLETED:  # only then the exit codes mean something
        ending = Ending(key, minor_status=_removal(ad), detail=f"HTCondor says: {ad.get('RemoveReason', 'removed')}")
    elif ad.get("ExitBySignal"):
        ending = Ending(key, signal=ad.get("ExitSignal"), minor_status=KILLED)
    else:
        ending = Ending(key, exit_code=ad.get("ExitCode"))
    return replace(ending, **_figures(ad))
