"""What every backend must do, through the real agent, a real server and the real batch system."""

import contextlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from DmpWorkflow.backend import journal, outside_watchdog, site_check
from DmpWorkflow.backend.command_backend import CommandBackend
from DmpWorkflow.backend.commands import Commands, Output
from DmpWorkflow.backend.interface import KILLED_FOR_TIME, AttemptKey, BatchJob, Submission
from DmpWorkflow.backend.work_files import site_needs
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.utils.errors import Unavailable
from tests.agent.farm import Site
from tests.schedulers.systems import System

MANY = 200
FEW = 40  # of systems that are not real: each costs CPU
EAT = "python3 -c 'import time; eaten = bytearray(400 << 20); time.sleep(1000)'"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The batch system's commands as they are called."""
    made: list[tuple[str, ...]] = []
    real = Commands.run

    def run(self: Commands, program: str, *arguments: str, text: str = "") -> Output:
        made.append((program, *arguments, text))
        return real(self, program, *arguments, text=text)

    monkeypatch.setattr(Commands, "run", run)
    return made


def cycle_until(site: Site, job: dict[str, Any], counts: dict[str, int]) -> None:
    """Run cycles until a job's instances have these statuses."""

    def reached() -> bool:
        site.cycle()
        found = site.counts(job)
        over = {status: number for status, number in found.items() if status in FINAL}
        assert all(number <= counts.get(status, 0) for status, number in over.items()), (over, ended(site, job))
        return found == counts

    site.wait(reached)


def shown(site: Site, job: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return site.people.instance(job["slug"], number)


def ended(site: Site, job: dict[str, Any], number: int = 1) -> tuple[str, str]:
    found = shown(site, job, number)
    return found["status"], found["minor_status"]


def runners(site: Site) -> list[psutil.Process]:
    """Return the payload runners of the site."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "DmpWorkflow.backend.runner" in (words := process.info["cmdline"] or [])
        and any(str(site.folder) in word for word in words)
    ]


def started(site: Site, job: dict[str, Any], number: int) -> None:
    """Wait until so many payloads run."""
    site.wait(lambda: site.counts(job).get("Running") == number and sum(site.runs().values()) == number)


def test_one_instance_goes_through_its_states(site: Site) -> None:
    job = site.submit(1, script="sleep 1")
    site.cycle()
    (queued,) = site.backend.query().values()
    assert queued.key.job_id == job["jobID"] and queued.status in (MajorStatus.SUBMITTED, MajorStatus.RUNNING)
    cycle_until(site, job, {"Done": 1})
    found = shown(site, job)
    seen = list(dict.fromkeys(entry["status"] for entry in found["status_history"]))
    assert seen in (["Submitted", "Running", "Done"], ["Running", "Done"]), seen  # it can be faster than its agent
    assert found["batch_id"].split(".")[0] == queued.batch_id.split(".")[0]


def test_hundreds_go_out_in_bulk(site: Site, system: System, calls: list[tuple[str, ...]]) -> None:
    """The payloads differ: success, a failure in every fourth instance, and a little work."""
    size = MANY if system.script else FEW
    scripts = ["true", "[ $((DWF_INSTANCE_ID % 4)) != 3 ] || exit 3", "for i in $(seq 2000); do echo $i; done"]
    jobs = [site.submit(size, script=script) for script in (scripts if system.script else scripts[:1])]
    for _ in jobs:
        before = len(calls)
        assert site.cycle(chunk=size).submitted == size
        submissions = [call for call in calls[before:] if system.commands and call[0] == system.commands[0]]
        assert len(submissions) <= 3, "arrays are as large as the system takes them"
    before = len(calls)
    held = {(key.job_id, key.instance_id) for key in site.backend.query()}
    assert len(calls) - before <= 1, "one question for all"
    assert held <= {(job["jobID"], number) for job in jobs for number in range(1, size + 1)}
    ends = [{"Done": size}, {"Done": size * 3 // 4, "Failed": size // 4}, {"Done": size}]
    for job, counts in zip(jobs, ends, strict=False):
        site.wait(partial(reached, site, job, counts), 900)
    lines = [tuple(line.split()[:2]) for line in site.ledger.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == size * len(jobs)
    site.wait(lambda: site.cycle().in_system == 0)


def reached(site: Site, job: dict[str, Any], counts: dict[str, int]) -> bool:
    return site.counts(job) == counts


def test_a_payload_that_fails(site: Site) -> None:
    job = site.submit(2, script="exit 3")
    site.cycle()
    cycle_until(site, job, {"Failed": 2})
    assert ended(site, job) == ("Failed", "ApplicationExitCode3")


def test_killed_by_a_person_while_running(site: Site) -> None:
    job = site.submit(3, script="sleep 1000")
    site.cycle()
    started(site, job, 3)
    site.people.kill(job["slug"], instances=[1, 2])
    cycle_until(site, job, {"Terminated": 2, "Running": 1})
    assert ended(site, job, 1) == ended(site, job, 2) == ("Terminated", "KilledByUser")
    site.wait(lambda: site.cycle().in_system == 1)


def test_killed_by_a_person_while_queued(site: Site, system: System) -> None:
    if not system.hold:
        pytest.skip("its queue cannot hold jobs")
    job = site.submit(2, BATCH_OVERRIDE_EXTRA=system.hold)
    site.cycle()
    cycle_until(site, job, {"Suspended": 2})
    assert ended(site, job) == ("Suspended", "HeldByBatch")
    assert shown(site, job)["log"]
    site.people.kill(job["slug"])
    cycle_until(site, job, {"Terminated": 2})
    assert ended(site, job) == ("Terminated", "KilledByUser")
    assert not site.runs()


def test_held_for_too_long(site: Site, system: System) -> None:
    if not system.hold:
        pytest.skip("its queue cannot hold jobs")
    object.__setattr__(site.settings.site, "hpc_hold_seconds", 0)
    job = site.submit(2, BATCH_OVERRIDE_EXTRA=system.hold)
    site.cycle()
    cycle_until(site, job, {"Failed": 2})
    assert ended(site, job) == ("Failed", "HeldByBatch")
    assert "on hold for" in shown(site, job)["log"]
    site.wait(lambda: site.cycle().in_system == 0)


SCRIPTS = {
    "success": "exit 0",
    "exit 3": "exit 3",
    "killed": "kill -9 $$",
    "memory": f"exec {EAT}",
    "time": "trap '' TERM USR1 USR2 XCPU INT; while true; do sleep 1; done",
    "cpu": "while true; do :; done",
    "cancelled": "exec sleep 1000",
}


def test_the_history_tells_how_jobs_ended(site: Site, system: System) -> None:
    """Jobs without a payload runner, so that nobody but the batch system can tell."""
    if system.name == "local":
        pytest.skip("it knows no limits")
    scripts = {word: text for word, text in SCRIPTS.items() if word != "memory" or system.says_of_memory}
    keys = {word: AttemptKey(f"{number:024x}", 7, 1) for number, word in enumerate(scripts, 1)}
    needs = dict.fromkeys(SCRIPTS, site_needs(site.settings))
    needs["memory"] = replace(needs["memory"], memory_mb=200)
    needs["time"] = replace(needs["time"], wall_seconds=system.wall_limit)
    by_clock, by_cpu = replace(needs["cpu"], wall_seconds=system.wall_limit), replace(needs["cpu"], cpu_seconds=5)
    needs["cpu"] = by_cpu if system.limits_cpu else by_clock
    submitted = site.backend.submit([job_of(site, keys[word], scripts[word], needs[word]) for word in scripts])
    ids = {done.key: str(done.batch_id) for done in submitted}
    assert None not in ids.values() and len(set(ids.values())) == len(scripts)
    site.wait(lambda: site.backend.query()[keys["cancelled"]].status is MajorStatus.RUNNING)
    site.backend.cancel([site.backend.query()[keys["cancelled"]], *gone(keys["success"])])
    site.wait(lambda: not site.backend.query(), 300)
    site.wait(lambda: len(site.backend.endings(ids)) == len(ids))
    ends = {word: site.backend.endings(ids)[keys[word]] for word in scripts}
    assert (ends["success"].exit_code or 0, ends["success"].minor_status) == (0, "")
    assert (ends["exit 3"].exit_code, ends["exit 3"].minor_status) == (3, "")
    assert (ends["killed"].signal or ends["killed"].exit_code) in system.says_of_killed
    assert ends["cancelled"].minor_status in system.says_of_cancelled
    assert "memory" not in ends or ends["memory"].minor_status in system.says_of_memory
    assert ends["time"].minor_status == KILLED_FOR_TIME
    assert ends["cpu"].minor_status == KILLED_FOR_TIME
    by_name = site.backend.endings(dict.fromkeys(ids, ""))
    assert {key: end.minor_status for key, end in by_name.items()} == {
        end.key: end.minor_status for end in ends.values()
    }


def test_a_hold_that_ends_a_job_tells_how_it_ended(site: Site, system: System) -> None:
    """HTCondor puts jobs on hold that it has killed; over their memory, too, where it has cgroups."""
    if system.name != "condor":
        pytest.skip("its holds end no job")
    key = AttemptKey(f"{9:024x}", 7, 1)
    needs = replace(site_needs(site.settings), extra="-append allowed_job_duration=3")
    (done,) = site.backend.submit([job_of(site, key, "exec sleep 1000", needs)])
    site.wait(lambda: key in site.backend.endings({key: str(done.batch_id)}))
    assert site.backend.endings({key: str(done.batch_id)})[key].minor_status == KILLED_FOR_TIME


def gone(key: AttemptKey) -> list[BatchJob]:
    """Return a job that the system does not know, and one of an id that is none."""
    return [BatchJob(key, "999999", MajorStatus.RUNNING)]


def job_of(site: Site, key: AttemptKey, script: str, needs: BatchNeeds) -> Submission:
    folder = site.folder / key.name
    folder.mkdir()
    path = folder / "script"
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o700)
    return Submission(key, path, 1, needs)


def test_a_job_that_vanishes_is_concluded_from_the_history(site: Site) -> None:
    job = site.submit(2, script="sleep 1000")
    site.cycle()
    started(site, job, 2)
    for runner in runners(site):
        for member in [*runner.children(recursive=True), runner]:
            with contextlib.suppress(ProcessLookupError):  # a "sleep" of the payload, say
                os.kill(member.pid, signal.SIGKILL)
    site.wait(lambda: not {"Running"} & {*site.counts(job)} or bool(site.cycle().lost))
    site.wait(lambda: bool(site.cycle()) and "Running" not in site.counts(job))
    status, minor = ended(site, job)
    assert status in ("Failed", "Terminated") and minor != "BatchJobVanished", (status, minor)
    assert "its batch job ended" in shown(site, job)["log"]


def test_orphans_are_adopted_and_nothing_is_submitted_twice(site: Site) -> None:
    job = site.submit(5, script="sleep 2")
    assert site.crash("submit", "after", 1)
    cycle_until(site, job, {"Done": 5})
    assert site.runs() == Counter({str(number): 1 for number in range(1, 6)})


def test_a_lost_journal_is_made_anew_from_the_names(site: Site, folder: Path) -> None:
    gate = folder / "gate"
    job = site.submit(6, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    kept = journal.agent_folder(Path(site.settings.site.workdir), "local")
    (kept / "journal.json").unlink()
    assert site.cycle().claimed == 0
    with journal.opened(kept) as opened:
        assert {key.instance_id for key in opened.held} == set(range(1, 7))
    gate.touch()
    cycle_until(site, job, {"Done": 6})


def test_a_refused_submission_carries_the_systems_words(site: Site, system: System) -> None:
    if not system.refusal:
        pytest.skip("it refuses nothing")
    good, bad = site.submit(2), site.submit(2, **dict([system.bad]))
    site.cycle()
    assert ended(site, bad) == ended(site, bad, 2) == ("Failed", "SubmissionFailed")
    assert re.search(system.refusal, shown(site, bad)["log"], re.IGNORECASE), shown(site, bad)["log"]
    cycle_until(site, good, {"Done": 2})


def test_a_system_that_is_down_loses_nothing(site: Site, system: System, folder: Path) -> None:
    if not system.commands:
        pytest.skip("it is this machine itself")
    gate = folder / "gate"
    job = site.submit(3, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    started(site, job, 3)
    more = site.submit(2)
    with systems_down(system):
        for _ in range(2):
            with pytest.raises(Unavailable):
                site.cycle()
        gate.touch()
        assert site.counts(more) == {"New": 2}
    site.wait(lambda: answers(site))
    cycle_until(site, more, {"Done": 2})
    cycle_until(site, job, {"Done": 3})
    assert sum(site.runs().values()) == 5


def answers(site: Site) -> bool:
    try:
        site.cycle()
    except Unavailable:
        return False
    return True


class systems_down:
    """The batch system is away."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __enter__(self) -> None:
        with_root(self.system, "stop-controller")

    def __exit__(self, *_: object) -> None:
        with_root(self.system, "start")


def with_root(system: System, word: str) -> None:
    """Control the system as root, whoever we are now."""
    with with_root_rights(system):
        system.control(word)


@contextlib.contextmanager
def with_root_rights(system: System) -> Iterator[None]:
    """Be root for a while, if we act as somebody else for this system."""
    me, group = os.geteuid(), os.getegid()
    if system.user:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
    try:
        yield
    finally:
        if system.user:
            os.setresgid(group, group, 0)
            os.setresuid(me, me, 0)


def test_limits_and_overrides_reach_the_system(site: Site, system: System, calls: list[tuple[str, ...]]) -> None:
    if not isinstance(site.backend, CommandBackend) or not system.commands:
        pytest.skip("it has no commands")
    job = site.submit(1, BATCH_OVERRIDE_MEMORY="500", BATCH_OVERRIDE_CPUTIME="02:30")
    site.cycle()
    cycle_until(site, job, {"Done": 1})
    words = " ".join(word for call in calls if call[0] == system.commands[0] for word in call)
    assert [word for word in system.translated if word not in words] == [], words


def test_a_site_check_goes_through_the_whole_chain(site: Site, system: System) -> None:
    python = site.python or sys.executable
    findings = list(site_check.check(site.settings, site.client, python, 60))
    if any("exit code 2" in finding.problem for finding in findings):
        # Slurm's slurmd, as it ends one job, may take the script of another that just starts for a stray one.
        findings = list(site_check.check(site.settings, site.client, python, 60))
    assert [finding.problem for finding in findings] == [""] * len(findings)
    assert [finding.name for finding in findings] == [
        "server", "token", "work folder", "batch system", "queue", "probe job", "payload runner", "EXEC_DIR_ROOT",
        "server from there",
    ]  # fmt: skip
    assert "back after" in findings[5].told
    assert site.cycle().cancelled == 0


def test_the_watchdog_from_outside_stops_what_cannot_report(site: Site, system: System, folder: Path) -> None:
    if not system.measures:
        pytest.skip("its queue tells no figures of running jobs")
    gate = folder / "gate"
    job = site.submit(1, script=f"while ! [ -e {gate} ]; do sleep 0.1; done; {EAT}")
    site.cycle()
    started(site, job, 1)
    (runner,) = runners(site)
    runner.suspend()
    gate.touch()
    tight = replace(site.settings, watchdog=replace(site.settings.watchdog, ratio_mem=0.05))  # of 4000 MB
    stopped: list[outside_watchdog.Stopped] = []

    def looked() -> bool:
        stopped.extend(outside_watchdog.look(tight, site.client, site.backend).stopped)
        return bool(stopped)

    site.wait(looked)
    assert ended(site, job) == ("Terminated", "ExceedingMemory")
    with contextlib.suppress(psutil.NoSuchProcess):
        runner.resume()
    site.wait(lambda: site.cycle().in_system == 0)
