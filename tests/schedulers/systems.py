"""The batch systems that the suite runs on, each with the words that it needs of a site and of a job."""

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from DmpWorkflow.backend.interface import KILLED, KILLED_FOR_MEMORY, REMOVED

HERE = Path(__file__).parent
START_SECONDS = 300
SERVERS: dict[Path, "subprocess.Popen[bytes]"] = {}  # of the stand-ins, by their folders


@dataclass(frozen=True)
class System:
    """A batch system: lines of [site], and how a test gets a job held, refused or killed by a limit."""

    name: str
    script: str = ""  # starts and stops it
    lines: str = ""
    standin: Path | None = None  # where the state of a stand-in is
    user: str = ""  # that submits, where root may not
    hold: str = ""  # BATCH_OVERRIDE_EXTRA of a job that waits until somebody releases it
    bad: tuple[str, str] = ("BATCH_OVERRIDE_QUEUE", "nosuch")  # the override that makes it refuse a job ...
    refusal: str = ""  # ... and a part of its words
    wall_limit: int = 5  # seconds that a test can wait for
    limits_cpu: bool = False  # it knows limits of CPU time as well
    says_of_cancelled: tuple[str, ...] = (REMOVED,)
    says_of_memory: tuple[str, ...] = (KILLED_FOR_MEMORY,)
    says_of_killed: tuple[int | None, ...] = (9, 137)  # signal or exit code of a job that kills itself
    measures: bool = False  # it tells CPU time and memory of running jobs
    commands: tuple[str, ...] = ()  # the first one submits
    translated: tuple[str, ...] = ()  # how 500 MB and 02:30 of CPU time reach it

    @property
    def configuration(self) -> str:
        """The lines of [site]."""
        return f"HPCsystem = {self.name}\n{self.lines}"

    def control(self, word: str) -> None:
        """Start or stop it."""
        if self.standin:
            _control_standin(self.standin, self.name, self.commands, word)
        elif self.script:
            subprocess.run([HERE / self.script, word], check=True, timeout=START_SECONDS, stdin=subprocess.DEVNULL)


LOCAL = System("local", lines="slots = 8")
SLURM = System(
    "slurm",
    script="slurm.sh",
    hold="--hold",
    refusal="invalid partition specified: nosuch",
    wall_limit=60,
    says_of_memory=(KILLED,),  # without cgroups it is a plain SIGKILL
    measures=True,
    commands=("sbatch", "squeue", "scancel"),
    translated=("--mem=500M", "--time=150"),
)
SGE = System(
    "sge",
    script="sge.sh",
    hold="-h",
    refusal='requests unknown queue "nosuch"',
    limits_cpu=True,
    says_of_cancelled=(KILLED,),  # as anybody's SIGKILL; the agent knows its own
    says_of_memory=(KILLED_FOR_MEMORY, ""),  # "": the allocation failed, and the script with it
    commands=("qsub", "qstat", "qdel"),
    translated=("h_vmem=500M", "h_cpu=9000"),
)
CONDOR = System(
    "condor",
    script="condor.sh",
    lines="HPCbin = /var/tmp/dwf-condor/bin",
    user="dwf-test",
    hold="-append hold=true",
    bad=("BATCH_OVERRIDE_REQUIREMENTS", "(("),
    refusal="ERROR",
    limits_cpu=True,
    measures=True,
    commands=("condor_submit", "condor_q", "condor_rm"),
    translated=("request_memory = 500", "RemoteSysCpu > 9000"),
)
PBS = System(
    "pbs",
    hold="-h",
    refusal="Unknown queue",
    limits_cpu=True,
    measures=True,
    commands=("qsub", "qstat", "qdel"),
    translated=("mem=500mb", "cput=9000"),
)
LSF = System(
    "lsf",
    lines="HPCtimeout = 5",
    hold="-H",
    refusal="No such queue",
    limits_cpu=True,
    says_of_memory=(),  # it does not enforce that
    says_of_killed=(None, 0),  # OpenLava says DONE
    measures=True,
    commands=("bsub", "bjobs", "bkill", "bhist"),
    translated=("-M 512000", "-c 2:30"),
)


def standing_in(system: System, folder: Path) -> System:
    """Return a stand-in for a system, with its state and commands in a folder of its own."""
    own = folder / system.name
    return replace(system, standin=own, lines=f"{system.lines}\nHPCbin = {own}/bin")


STANDINS = Path(tempfile.gettempdir()) / f"dwf-standins-{os.getpid()}"
SYSTEMS = {
    system.name: system
    for system in (LOCAL, SLURM, SGE, CONDOR, standing_in(PBS, STANDINS), standing_in(LSF, STANDINS))
}


def _control_standin(folder: Path, name: str, commands: tuple[str, ...], word: str) -> None:
    """Start or stop a stand-in; its jobs outlive it, as they do with the real one."""
    pid = folder / "pid"
    if word == "start":
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        for command in commands:
            path = folder / "bin" / command
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "standin.py"} {folder} {command} "$@"\n')
            path.chmod(0o755)
        pid.unlink(missing_ok=True)
        SERVERS[folder] = subprocess.Popen([sys.executable, HERE / "standin.py", folder, "serve"])
        deadline = time.monotonic() + 30
        while not pid.exists():
            assert time.monotonic() < deadline, "the stand-in does not start"
            time.sleep(0.05)
    elif word.startswith("stop"):
        SERVERS[folder].kill()
        SERVERS.pop(folder).wait()
        if word == "stop":
            shutil.rmtree(folder, ignore_errors=True)


def start(system: System) -> None:
    """Start it, or leave the test out where that is not possible."""
    if system.standin:
        system.control("start")
    if not system.script:
        return
    if os.geteuid() != 0:
        message = f"starting a real {system.name} needs root"
        if os.environ.get("DAMPE_REQUIRE_ALL"):
            pytest.fail(message)
        pytest.skip(message)
    if os.environ.get("DAMPE_REQUIRE_ALL"):
        _install(system)
    try:
        system.control("start")
    except (subprocess.CalledProcessError, OSError) as error:
        if os.environ.get("DAMPE_REQUIRE_ALL"):
            raise
        pytest.skip(f"{system.name} is not installed (tests/schedulers/{system.script} install): {error}")


def _install(system: System) -> None:
    """Install it from Debian, one system after the other: apt works for one at a time."""
    with (Path(tempfile.gettempdir()) / "dwf-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        system.control("install")


@contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Be another user for a while, and come back."""
    if not user:
        yield
        return
    entry = pwd.getpwnam(user)
    home = os.environ.get("HOME", "/")
    groups = os.getgroups()
    os.setgroups([entry.pw_gid])
    os.setresgid(entry.pw_gid, entry.pw_gid, 0)
    os.setresuid(entry.pw_uid, entry.pw_uid, 0)
    os.environ["HOME"] = entry.pw_dir
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)
        os.environ["HOME"] = home
