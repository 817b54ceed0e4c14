"""What happens to payloads on worker nodes: full disks, folders that vanish, wrong clocks, kills, daemons."""

import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from DmpWorkflow.backend.outbox import outboxes
from DmpWorkflow.backend.reporter import Sender
from DmpWorkflow.backend.run_file import FileToStage, RunLimits
from tests.agent.runner_support import (
    BUSY,
    OK,
    PATIENCE,
    Reply,
    Report,
    kept,
    run_file,
    run_to_end,
    running,
    stand_in,
)
from tests.needs import faketime

DAEMON = """python3 -c '
import os, time
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
print(os.getpid(), flush=True)
os.close(1)
os.close(2)
{work}'"""
IDLE = DAEMON.format(work="time.sleep(600)")
HOG = DAEMON.format(work="data = bytearray(300 * 1024**2); time.sleep(600)")
BURNER = DAEMON.format(work="while time.process_time() < 100: pass")


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], Path]]:
    """What gives a folder a disk of its own, of 1 MB."""
    folders: list[Path] = []

    def mount(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine mounts nothing")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", folder], check=True)


def deliver(folder: Path) -> None:
    """Deliver what a runner left, as the agent does."""
    for outbox in outboxes(folder / "outbox"):
        send = Sender(outbox.delivery)
        assert outbox.deliver(send).left == 0


def test_a_server_away_for_the_whole_run_hears_of_it_from_the_agent(tmp_path: Path) -> None:
    with stand_in() as server:
        pass
    code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran", grace_seconds=0.1))
    assert (code, out) == (128, "")
    with stand_in(port=server.port) as back:
        deliver(tmp_path)
    assert back.statuses() == [("Failed", "ServerNotReached")]
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_full_disk_at_stage_out_is_the_reason_and_leaves_no_part(
    tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    target = mounted(tmp_path / "target")
    (target / "old").write_text("old")
    outputs = (FileToStage("small", f"{target}/small"), FileToStage("large", f"{target}/old"))
    script = "echo small > small; head -c 3000000 /dev/zero > large"
    with stand_in() as server:
        code, _, err = run_to_end(tmp_path, run_file(tmp_path, server.url, script, output_files=outputs))
    assert (code, server.statuses()[-1]) == (6, ("Failed", "NoSpaceLeftAtTarget"))
    assert "No space left on device" in server.reports[-1]["log"]
    assert "Traceback" not in err
    assert sorted(path.name for path in target.iterdir()) == ["old", "small"]
    assert (target / "old").read_text() == "old"
    assert server.forms == []


def test_a_quota_at_stage_out_is_the_reason_and_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    outputs = (FileToStage(str(tmp_path / "large"), f"{tmp_path}/target/"),)
    (tmp_path / "large").write_bytes(b"\0" * 3_000_000)
    limit = (1_000_000, 1_000_000)
    with stand_in() as server:
        run = run_file(tmp_path, server.url, "true", output_files=outputs)
        code, _, _ = run_to_end(tmp_path, run, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert (code, server.statuses()[-1]) == (6, ("Failed", "NoSpaceLeftAtTarget"))
    assert "File too large" in server.reports[-1]["log"]
    assert list((tmp_path / "target").iterdir()) == []


def test_reports_that_a_full_disk_does_not_take_reach_a_server_that_was_busy(
    tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    outbox = mounted(tmp_path / "outbox")
    answers = iter([OK, OK, BUSY, BUSY, BUSY])
    with stand_in(answer=lambda report: next(answers, OK)) as server:
        script = f"head -c 3000000 /dev/zero > {outbox}/ballast; echo full"
        run = run_file(tmp_path, server.url, script, linger_seconds=PATIENCE)
        code, _, err = run_to_end(tmp_path, run)
    assert (code, server.statuses()[-1]) == (0, ("Done", "ApplicationComplete"))
    assert "cannot keep a report" in err
    assert [report["sequence"] for report in server.reports] == [1, 2, 3, 4, 5]


def test_a_work_folder_that_vanishes_is_the_reason(tmp_path: Path) -> None:
    outputs = (FileToStage("result", str(tmp_path / "result")),)
    with stand_in() as server:
        run = run_file(tmp_path, server.url, f"rm -r {tmp_path}/exec", output_files=outputs)
        code, _, err = run_to_end(tmp_path, run)
    assert (code, server.statuses()[-1]) == (6, ("Failed", "WorkFolderGone"))
    assert f"{tmp_path}/exec/000007/local was removed" in server.reports[-1]["log"]
    assert "Traceback" not in err


def test_a_report_is_kept_though_all_shared_folders_vanished(tmp_path: Path) -> None:
    def answer(report: Report) -> Reply:
        return OK if report["minor_status"] == "PreparingJob" else BUSY

    with stand_in(answer=answer) as server:
        run = run_file(tmp_path, server.url, f"rm -r {tmp_path}/exec {tmp_path}/outbox; exit 3")
        code, _, _ = run_to_end(tmp_path, run)
    assert code == 5
    assert [report["minor_status"] for report in kept(tmp_path)] == ["ApplicationExitCode3"]
    with stand_in(port=server.port) as back:
        deliver(tmp_path)
    assert back.statuses() == [("Failed", "ApplicationExitCode3")]


def test_ten_seconds_are_enough_to_report_a_kill(tmp_path: Path) -> None:
    """The payload ignores TERM, and would be given much longer if nobody were in a hurry."""
    script = "trap '' TERM; echo up; while :; do sleep 600; done"
    with stand_in() as server:
        run = run_file(tmp_path, server.url, script, stop_seconds=10 * PATIENCE)
        with running(tmp_path, run) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            payload = psutil.Process(runner.pid).children()[0]
            runner.send_signal(signal.SIGTERM)
            assert runner.wait(PATIENCE) == 128
    assert not payload.is_running()
    assert server.statuses()[-1] == ("Terminated", "KilledByBatch")


def test_a_kill_that_cannot_be_reported_is_kept_before_all_else(tmp_path: Path) -> None:
    def answer(report: Report) -> Reply:
        return BUSY if report["major_status"] == "Terminated" else OK

    script = "trap '' TERM; echo up; while :; do sleep 600; done"
    with stand_in(answer=answer) as server, running(tmp_path, run_file(tmp_path, server.url, script)) as runner:
        assert runner.stdout is not None
        runner.stdout.readline()
        runner.send_signal(signal.SIGTERM)
        pause = threading.Event()
        while not any(report["minor_status"] == "KilledByBatch" for report in kept(tmp_path)):
            assert runner.poll() is None, "it ended without a word"
            pause.wait(0.02)
        runner.kill()  # the batch system's last word
        runner.wait(PATIENCE)
        server.answer = lambda report: OK
        deliver(tmp_path)
    assert server.statuses()[-1] == ("Terminated", "KilledByBatch")


@pytest.mark.parametrize(
    ("script", "limits", "minor_status"),
    [
        (HOG, RunLimits(memory_mb=200), "ExceedingMemory"),
        (BURNER, RunLimits(cpu_seconds=0.5), "ExceedingCpuTime"),
    ],
)
def test_a_daemon_counts_and_is_stopped(tmp_path: Path, script: str, limits: RunLimits, minor_status: str) -> None:
    with stand_in() as server:
        run = run_file(tmp_path, server.url, f"{script}; sleep 600", limits=limits)
        code, out, _ = run_to_end(tmp_path, run)
    assert (code, server.statuses()[-1]) == (128, ("Terminated", minor_status))
    assert not psutil.pid_exists(int(out.split()[0]))


def test_a_daemon_does_not_outlive_its_payload(tmp_path: Path) -> None:
    with stand_in() as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, f"{IDLE} | head -n 1"))  # has begun
    assert (code, server.statuses()[-1]) == (0, ("Done", "ApplicationComplete"))
    assert not psutil.pid_exists(int(out.split()[0]))


@pytest.mark.parametrize("shift", ["+1h", "-1h"])
def test_a_wrong_clock_changes_nothing(tmp_path: Path, shift: str) -> None:
    with stand_in() as server, faketime(shift) as wrong:
        run = run_file(tmp_path, server.url, "date +%s; sleep 0.3", interval_seconds=0.05)
        code, out, _ = run_to_end(tmp_path, run, env=os.environ | wrong)
    now = int(subprocess.run(["date", "+%s"], capture_output=True, check=True, text=True).stdout)
    assert abs(abs(int(out) - now) - 3600) < 1800, "the clock was not wrong"
    assert code == 0
    assert server.statuses()[-1] == ("Done", "ApplicationComplete")
    assert [report["sequence"] for report in server.reports] == list(range(1, len(server.reports) + 1))
    assert not any("time" in name for report in server.reports for name in report)
