"""The agent beside the bare commands of real schedulers, in the same run; starts and stops them like the tests."""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from DmpWorkflow.backend.command_backend import CommandBackend
from DmpWorkflow.backend.condor import OF_QUEUE
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.agent.farm import Site
from tests.schedulers import systems
from tests.schedulers.systems import CONDOR, SGE, SLURM, System
from tests.served import Served, serve

FEW, MANY = 200, 10_000
REPEATS = 5
# Held, so that what is measured is not disturbed by jobs that run.
BARE_SUBMISSION = {
    "slurm": ["sbatch", "--parsable", "--hold", "--output=/dev/null", "--array=1-100"],  # as large as it takes them
    "sge": ["qsub", "-terse", "-h", "-S", "/bin/bash", "-o", "/dev/null", "-j", "y", "-t", f"1-{FEW}"],
    "condor": ["condor_submit", "-terse", "-"],
}
CALLS = {"slurm": FEW // 100, "sge": 1, "condor": 1}
BARE_TEXT = {"condor": f"executable = /bin/true\nhold = true\nqueue {FEW}\n"}
BARE_QUERY = {
    "slurm": ["squeue", "-h", "-r", "-u", "root"],
    "sge": ["qstat", "-u", "root", "-g", "d"],
    "condor": ["condor_q", "-json", "-attributes", OF_QUEUE],
}
Row = tuple[str, float, float]  # name, seconds bare, seconds of the agent


def measure(quick: bool) -> list[Row]:
    """Measure all schedulers that can be started here."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, EmbeddedMongod(Path(name) / "mongodb") as mongod:
        for served in serve(mongod, Path(name)):
            for system in (SLURM, SGE, CONDOR):
                system.control("install")
                system.control("start")
                try:
                    rows += _measure_one(served, system, MANY // 10 if quick else MANY)
                finally:
                    system.control("stop")
    return rows


def _measure_one(served: Served, system: System, many: int) -> list[Row]:
    served.database.instances.delete_many({})
    folder = Path(tempfile.mkdtemp(prefix="dwf-bench-"))
    folder.chmod(0o755)
    if system.user:
        shutil.chown(folder, system.user)
    with systems.acting_as(system.user):
        site = Site(served, folder, system.configuration)
        try:
            bare = [_bare_submission(site, system) for _ in range(REPEATS)]
            agent = [_agent_submission(site, system) for _ in range(REPEATS)]
            idle = [_timed(lambda: site.cycle(chunk=0)) for _ in range(REPEATS)]
            submission, cycle = statistics.median(bare), statistics.median(agent)
            rows = [(f"{system.name}: cycle that submits {FEW}", submission, cycle)]
            rows += [(f"{system.name}: the same, less one without work", submission, cycle - statistics.median(idle))]
            _fill(site, system, many)
            site.cycle(chunk=0)
            query = [_timed(lambda: _run(site, BARE_QUERY[system.name])) for _ in range(REPEATS)]
            cycles = [_timed(lambda: site.cycle(chunk=0)) for _ in range(REPEATS)]
            rows.append((f"{system.name}: {many} in the queue", statistics.median(query), statistics.median(cycles)))
        finally:
            site.close()
            shutil.rmtree(folder, ignore_errors=True)
    return rows


def _bare_submission(site: Site, system: System) -> float:
    text = BARE_TEXT.get(system.name, "#!/bin/bash\ntrue\n")

    def submit() -> None:
        for _ in range(CALLS[system.name]):
            _run(site, BARE_SUBMISSION[system.name], text)

    return _timed(submit)


def _agent_submission(site: Site, system: System) -> float:
    site.cycle(chunk=0)  # reports what was held before: that is not part of a submission
    site.submit(FEW, BATCH_OVERRIDE_EXTRA=system.hold)
    return _timed(lambda: site.cycle(chunk=FEW))


def _fill(site: Site, system: System, number: int) -> None:
    site.settings = replace(site.settings, site=replace(site.settings.site, hpc_hold_seconds=10**6))
    site.submit(number - len(site.backend.query()), BATCH_OVERRIDE_EXTRA=system.hold)
    while site.cycle(chunk=1000).claimed:
        pass


def _run(site: Site, command: Sequence[str], text: str = "") -> None:
    assert isinstance(site.backend, CommandBackend)
    path = site.backend.commands.path(command[0])
    subprocess.run([path, *command[1:]], input=text.encode(), stdout=subprocess.DEVNULL, check=True)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
