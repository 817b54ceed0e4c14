"""What breaks, with real batch systems: after it, every instance has ended once, and none was lost or ran twice."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from DmpWorkflow.utils.errors import DmpWorkflowError, Unavailable
from tests.agent.farm import Site
from tests.schedulers.systems import System
from tests.schedulers.test_conformance import systems_down, with_root_rights
from tests.served import Served

DRAIN_SECONDS = 300
STEPS = [
    *(("journal", when, number) for when in ("before", "after") for number in (1, 2)),
    *((point, "before", 1) for point in ("heartbeat", "intent", "claim", "prepare", "submit", "report", "closing")),
    *((point, "after", 1) for point in ("heartbeat", "intent", "claim", "prepare", "submit", "report", "closing")),
    *(("command", when, number) for when in ("before", "after") for number in (1, 2)),
]  # fmt: skip
RANDOM_KILLS = {"slurm": 50, "sge": 20, "condor": 20}  # what is killed is the same agent; half a minute for 50


@pytest.fixture
def real(system: System) -> System:
    """A real scheduler; the local backend has tests of its own, and a stand-in proves nothing here."""
    if not system.script:
        pytest.skip("it is no real scheduler")
    return system


def drain(site: Site, jobs: list[dict[str, Any]]) -> None:
    """Run cycles until everything is Done; each payload signs the ledger with instance, job and attempt."""
    wanted = sum(sum(site.counts(job).values()) for job in jobs)

    def done() -> bool:
        try:
            site.cycle()
        except Unavailable:
            return False
        return sum(site.counts(job).get("Done", 0) for job in jobs) == wanted

    site.wait(done, DRAIN_SECONDS)
    lines = [line.split()[:2] for line in site.ledger.read_text().splitlines()]
    assert len(lines) == len({tuple(line) for line in lines}) == wanted


def test_an_agent_killed_at_every_step(site: Site, real: System) -> None:
    jobs, crashes = [], 0
    for point, when, number in STEPS:
        jobs.append(site.submit(3))
        crashes += site.crash(point, when, number)
    assert crashes >= len(STEPS) * 2 // 3  # a cycle has as many commands and journal entries as it has work
    drain(site, jobs)


def test_an_agent_killed_at_random_places(site: Site, real: System) -> None:
    dice = random.Random(2016)  # noqa: S311 - no secret
    kills = RANDOM_KILLS[real.name]
    jobs = [site.submit(kills)]
    for _ in range(kills):
        agent = site.start_agent()
        time.sleep(dice.uniform(0.1, 1.2))  # the place is what is random
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
    drain(site, jobs)


def test_the_scheduler_is_stopped_and_started(site: Site, real: System) -> None:
    jobs = [site.submit(10, script="sleep 2")]
    site.cycle(chunk=5)
    with systems_down(real):
        jobs.append(site.submit(5))
        with pytest.raises(Unavailable):
            site.cycle()
    drain(site, jobs)


def test_the_server_is_stopped_and_started(site: Site, real: System, served: Served, folder: Path) -> None:
    gate = folder / "gate"
    jobs = [site.submit(8, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")]
    site.cycle()
    site.wait(lambda: sum(site.runs().values()) == 8)
    with with_root_rights(real):
        served.process.terminate()
        served.process.wait(60)
    try:
        with pytest.raises(DmpWorkflowError):
            site.cycle()
        gate.touch()
        outboxes = folder / "work" / ".outbox"
        site.wait(lambda: sum("Done" in kept.read_text() for kept in outboxes.glob("*/*.json")) >= 8)
    finally:
        with with_root_rights(real):
            served.process = served.launch()
    drain(site, jobs)


@pytest.fixture
def small_disk(system: System, folder: Path) -> Iterator[Path]:
    """A work folder on a disk of its own, of 8 MB."""
    work = folder / "work"
    work.mkdir()
    options = "size=8m,mode=0777"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", work], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this machine mounts nothing")
    yield work
    subprocess.run(["umount", "-l", work], check=True)


def test_the_disk_of_the_work_folder_is_full(small_disk: Path, site: Site, real: System) -> None:
    gate = site.folder / "gate"
    jobs = [site.submit(4, script=f"while ! [ -e {gate} ]; do sleep 0.1; done; echo some output")]
    site.cycle()
    site.wait(lambda: sum(site.runs().values()) == 4)
    jobs.append(site.submit(20))
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    with pytest.raises(Unavailable, match="No space left"):
        site.cycle()
    assert site.counts(jobs[1]) == {"New": 20}
    ballast.write_bytes(b"\0" * (ballast.stat().st_size - 40 * 1024))  # room for the journal, not for all folders
    for _ in range(2):
        try:
            site.cycle()
        except Unavailable as error:
            assert "No space left" in str(error)
    gate.touch()
    ballast.unlink()
    drain(site, jobs)
