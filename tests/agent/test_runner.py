"""The runner as a real process; the server is a stand-in for the API (see runner_support)."""

import contextlib
import json
import os
import signal
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from DmpWorkflow.backend.run_file import (
    FileToStage,
    PayloadVariable,
    RunBatch,
    RunFile,
    RunLimits,
    RunSite,
)
from DmpWorkflow.utils.errors import InvalidInput
from tests.agent.runner_support import (
    BUSY,
    OK,
    PATIENCE,
    STALE,
    Reply,
    Report,
    kept,
    run_file,
    run_to_end,
    running,
    stand_in,
)

WHOLE_LIFE = [
    ("Running", "PreparingJob"),
    ("Running", "PreparingInputData"),
    ("Running", "ExecutingApplication"),
    ("Running", "PreparingOutputData"),
    ("Done", "ApplicationComplete"),
]
PYTHON_HOG = "exec python3 -c 'import time; data = bytearray(300 * 1024**2); print(1, flush=True); time.sleep(600)'"
UNTIL_KILLED = """exec python3 -c '
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()'
"""


def test_success_reports_every_step_stages_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("data")
    with stand_in() as server:
        run = run_file(
            tmp_path,
            server.url,
            "tr a-z A-Z < in.txt > out.txt; echo said",
            input_files=(FileToStage(str(tmp_path / "in.txt"), "in.txt"),),
            output_files=(FileToStage("out.txt", f"{tmp_path}/result/$DWF_SIXDIGIT.txt"),),
            limits=RunLimits(memory_mb=1000, cpu_seconds=100),
            batch=RunBatch(batch_id_variable="SLURM_JOB_ID"),
        )
        code, out, _ = run_to_end(tmp_path, run, env={**os.environ, "SLURM_JOB_ID": "4711.0"})
    assert (code, out) == (0, "said\n")
    assert server.statuses() == WHOLE_LIFE
    assert (tmp_path / "result" / "000007.txt").read_text() == "DATA"
    first, last = server.reports[0], server.reports[-1]
    assert (first["batchId"], first["cpu_max"], first["mem_max"]) == ("4711", 100, 1000)
    assert first["hostname"]
    assert last["log"] == "said"
    assert [report["sequence"] for report in server.reports] == [1, 2, 3, 4, 6]  # 5 entered the file
    assert len({report["runner"] for report in server.reports}) == 1
    assert server.tokens == {"Bearer secret-of-this-attempt"}
    assert server.forms == [{"filename": [f"{tmp_path}/result/000007.txt"], "site": ["bari"], "action": ["register"]}]
    assert list((tmp_path / "exec").iterdir()) == []
    assert list((tmp_path / "outbox").iterdir()) == []


def test_payload_runs_in_its_own_folder_with_the_promised_environment(tmp_path: Path) -> None:
    with stand_in() as server:
        run = run_file(
            tmp_path,
            server.url,
            'pwd; echo "$PLACE" "$site" "$DWF_INSTANCE_ID" "$DWF_RANDOM_SEED"',
            variables=(PayloadVariable("PLACE", "${HOME}/$DWF_SIXDIGIT/$UNSET"),),
            attributes={"site": "bari"},
            seed=99,
        )
        _, out, _ = run_to_end(tmp_path, run, env={**os.environ, "HOME": "/home/x"})
    assert out == f"{tmp_path}/exec/000007/local\n/home/x/000007/$UNSET bari 7 99\n"


def test_failing_payload_keeps_its_folder_and_says_why(tmp_path: Path) -> None:
    with stand_in() as server:
        code, _, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "seq 1 300; exit 3"))
    assert code == 5
    assert server.statuses()[-1] == ("Failed", "ApplicationExitCode3")
    lines = server.reports[-1]["log"].splitlines()
    assert (len(lines), lines[-2:]) == (100, ["300", "the payload ended with exit code 3"])
    assert (tmp_path / "exec" / "000007" / "local" / "payload").exists()


def test_second_attempt_does_not_touch_the_folder_of_the_first(tmp_path: Path) -> None:
    with stand_in() as server:
        run_to_end(tmp_path, run_file(tmp_path, server.url, "touch mine; exit 1"))
        _, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "pwd; ls", attempt=2))
    assert out == f"{tmp_path}/exec/000007/local-1\npayload\n"


def test_signalled_payload_gets_a_shells_exit_code(tmp_path: Path) -> None:
    with stand_in() as server:
        code, _, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "kill -SEGV $$"))
    assert (code, server.statuses()[-1]) == (5, ("Failed", "ApplicationExitCode139"))


def test_missing_executable_is_a_plain_failure(tmp_path: Path) -> None:
    with stand_in() as server:
        code, _, err = run_to_end(tmp_path, run_file(tmp_path, server.url, executable="/no/such"))
    assert (code, server.statuses()[-1]) == (5, ("Failed", "ApplicationExitCode127"))
    assert "Traceback" not in err


def test_missing_input_is_a_stage_in_failure(tmp_path: Path) -> None:
    missing = FileToStage(str(tmp_path / "none.root"), "none.root")
    with stand_in() as server:
        code, out, err = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran", input_files=(missing,)))
    assert (code, out) == (4, "")
    assert server.statuses()[-1] == ("Failed", "SourceFileDoesNotExist")
    assert "none.root" in server.reports[-1]["log"]
    assert "Traceback" not in err


def test_missing_output_is_a_stage_out_failure(tmp_path: Path) -> None:
    missing = FileToStage("none.root", str(tmp_path / "none.root"))
    with stand_in() as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran", output_files=(missing,)))
    assert (code, out) == (6, "ran\n")
    assert server.statuses()[-1] == ("Failed", "SourceFileDoesNotExist")
    assert server.forms == []


def test_site_software_is_sourced_first(tmp_path: Path) -> None:
    release = tmp_path / "sw" / "releases" / "DmpSoftware-6-0-0"
    (release / "bin").mkdir(parents=True)
    (release / "bin" / "thisdmpsw.sh").write_text('export FROM_RELEASE="$EXTERNALS $PWD $#"')
    (tmp_path / "externals.sh").write_text("export EXTERNALS=externals")
    site = RunSite("bari", str(tmp_path / "sw"), str(tmp_path / "exec"), str(tmp_path / "externals.sh"))
    with stand_in() as server:
        run = run_file(tmp_path, server.url, 'echo "$FROM_RELEASE"; pwd', release="6-0-0", site=site)
        code, out, _ = run_to_end(tmp_path, run)
    assert (code, out) == (0, f"externals {release} 0\n{tmp_path}/exec/000007/local\n")


def test_missing_externals_script_is_said_plainly_if_the_job_has_a_release(tmp_path: Path) -> None:
    site = RunSite("bari", "", str(tmp_path / "exec"), "/no/externals.sh")
    with stand_in() as server:
        with_release = run_file(tmp_path, server.url, "echo ran", release="6-0-0", site=site)
        code, out, _ = run_to_end(tmp_path, with_release)
        without, _, _ = run_to_end(tmp_path, replace(with_release, release="", attempt=2))
    failure = next(report for report in server.reports if report["major_status"] == "Failed")
    assert (code, out, without) == (4, "", 0)
    assert failure["minor_status"] == "ExternalsScriptDoesNotExistOnThisWorkerNodeNoExternalsSh"


def test_memory_hog_is_terminated(tmp_path: Path) -> None:
    with stand_in() as server:
        run = run_file(tmp_path, server.url, PYTHON_HOG, limits=RunLimits(memory_mb=200))
        code, _, _ = run_to_end(tmp_path, run)
    assert (code, server.statuses()[-1]) == (128, ("Terminated", "ExceedingMemory"))
    assert server.reports[-1]["memory"] > 190


def test_memory_of_a_whole_fork_tree_counts(tmp_path: Path) -> None:
    script = f"({PYTHON_HOG.replace('300', '80')}) & ({PYTHON_HOG.replace('300', '80')}) & wait"
    with stand_in() as server:
        code, _, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, script, limits=RunLimits(memory_mb=150)))
    assert (code, server.statuses()[-1]) == (128, ("Terminated", "ExceedingMemory"))


def test_cpu_burner_is_terminated_with_all_it_started(tmp_path: Path) -> None:
    script = "(while :; do :; done) & echo $!; while :; do :; done"
    with stand_in() as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, script, limits=RunLimits(cpu_seconds=0.5)))
    assert (code, server.statuses()[-1]) == (128, ("Terminated", "ExceedingCpuTime"))
    assert server.reports[-1]["cpu"] >= 0.49
    assert not psutil.pid_exists(int(out.split()[0]))  # bash may tell of what was terminated


def test_sigterm_is_reported_and_ends_the_payload(tmp_path: Path) -> None:
    with stand_in() as server, running(tmp_path, run_file(tmp_path, server.url, "echo $$; sleep 600")) as runner:
        assert runner.stdout is not None
        payload = int(runner.stdout.readline())
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(PATIENCE) == 128
    assert server.statuses()[-1] == ("Terminated", "KilledByBatch")
    assert not psutil.pid_exists(payload)


def test_payload_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    run = run_file(tmp_path, "", UNTIL_KILLED, stop_seconds=0.1)
    with stand_in() as server, running(tmp_path, replace(run, server_url=server.url)) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        payload = psutil.Process(runner.pid).children()[0]
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(PATIENCE) == 128
    assert not payload.is_running()
    assert server.statuses()[-1] == ("Terminated", "KilledByBatch")


def test_refused_start_runs_nothing(tmp_path: Path) -> None:
    with stand_in(answer=lambda report: STALE) as server:
        code, out, err = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran"))
    assert (code, out) == (128, "")
    assert not (tmp_path / "exec").exists()
    assert kept(tmp_path) == []
    assert "Traceback" not in err


def test_denied_credential_runs_nothing(tmp_path: Path) -> None:
    with stand_in(answer=lambda report: (401, {"result": "nok", "error": "no"})) as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran"))
    assert (code, out) == (128, "")


def test_unreachable_server_runs_nothing_and_leaves_word(tmp_path: Path) -> None:
    with stand_in() as server:
        pass
    code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran", grace_seconds=0.2))
    assert (code, out) == (128, "")
    assert [report["minor_status"] for report in kept(tmp_path)] == ["ServerNotReached"]


def test_server_that_comes_back_within_the_grace_time_is_waited_for(tmp_path: Path) -> None:
    refusals = iter([BUSY, (200, "<html>a proxy's page</html>"), (302, "")])
    with stand_in(answer=lambda report: next(refusals, OK)) as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "echo ran"))
    assert (code, out) == (0, "ran\n")
    assert server.statuses() == WHOLE_LIFE


def test_refused_sample_stops_the_payload(tmp_path: Path) -> None:
    def answer(report: Report) -> Reply:
        return STALE if report["minor_status"] is None else OK

    with stand_in(answer=answer) as server:
        run = run_file(tmp_path, server.url, "echo $$; sleep 600", interval_seconds=0.05)
        code, out, _ = run_to_end(tmp_path, run)
    assert code == 128
    assert not psutil.pid_exists(int(out.split()[0]))  # bash may tell of what was terminated
    assert ("Done", "ApplicationComplete") not in server.statuses()


def test_samples_are_signs_of_life_without_a_minor_status(tmp_path: Path) -> None:
    run = run_file(tmp_path, "", "read -t 600 < fifo", interval_seconds=0.05)
    with stand_in() as server:
        script = f"mkfifo {tmp_path}/fifo; echo up; read line < {tmp_path}/fifo"
        with running(tmp_path, replace(run, server_url=server.url, script=script)) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            sample = server.wait_for(lambda report: report["minor_status"] is None and report["memory"] > 0)
            (tmp_path / "fifo").write_text("go on\n")
            assert runner.wait(PATIENCE) == 0
    assert sample["major_status"] == "Running"
    assert server.statuses() == WHOLE_LIFE


def test_server_down_during_the_run_loses_no_report(tmp_path: Path) -> None:
    with stand_in() as server:
        script = f"mkfifo {tmp_path}/fifo; echo up; read line < {tmp_path}/fifo"
        with running(tmp_path, run_file(tmp_path, server.url, script)) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            server.wait_for(lambda report: report["minor_status"] == "ExecutingApplication")
            server.close()
            (tmp_path / "fifo").write_text("go on\n")
            assert runner.wait(PATIENCE) == 0
        assert [report["minor_status"] for report in kept(tmp_path)] == ["PreparingOutputData", "ApplicationComplete"]


def test_server_back_before_the_end_gets_all_reports_in_order(tmp_path: Path) -> None:
    with stand_in() as first:
        script = f"mkfifo {tmp_path}/fifo; echo up; read line < {tmp_path}/fifo"
        run = run_file(tmp_path, first.url, script, interval_seconds=0.05)
        with running(tmp_path, run) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            first.wait_for(lambda report: report["minor_status"] == "ExecutingApplication")
            first.close()
            with stand_in(port=first.port) as second:
                (tmp_path / "fifo").write_text("go on\n")
                assert runner.wait(PATIENCE) == 0
    assert first.statuses() + second.statuses() == WHOLE_LIFE
    numbers = [report["sequence"] for report in first.reports + second.reports]
    assert numbers == sorted(numbers)
    assert kept(tmp_path) == []


def test_killed_runner_takes_its_payload_along_and_leaves_its_reports(tmp_path: Path) -> None:
    reports: list[Report] = []

    def answer(report: Report) -> Reply:
        reports.append(report)
        return OK if report["minor_status"] == "PreparingJob" else BUSY

    with (
        stand_in(answer=answer) as server,
        running(tmp_path, run_file(tmp_path, server.url, UNTIL_KILLED)) as runner,
    ):
        assert runner.stdout is not None
        runner.stdout.readline()
        payload = psutil.Process(runner.pid).children()[0]
        runner.kill()
        runner.wait(PATIENCE)
        assert psutil.wait_procs([payload], PATIENCE)[1] == []
    assert [report["minor_status"] for report in kept(tmp_path)] == ["PreparingInputData", "ExecutingApplication"]


def _wait_until_gone(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.wait_procs([psutil.Process(pid)], PATIENCE)[1] == []


def test_server_that_hangs_blinds_no_watchdog(tmp_path: Path) -> None:
    let_go = threading.Event()

    def answer(report: Report) -> Reply:
        if report["minor_status"] == "ExecutingApplication":
            let_go.wait(PATIENCE)
        return OK

    with stand_in(answer=answer) as server:
        run = run_file(tmp_path, server.url, f"echo $$; {PYTHON_HOG}", limits=RunLimits(memory_mb=200))
        with running(tmp_path, run) as runner:
            assert runner.stdout is not None
            _wait_until_gone(int(runner.stdout.readline()))
            let_go.set()
            assert runner.wait(PATIENCE) == 128
    assert server.statuses()[-1] == ("Terminated", "ExceedingMemory")


def test_sigterm_while_waiting_for_the_server_ends_the_wait(tmp_path: Path) -> None:
    asked = threading.Event()

    def answer(report: Report) -> Reply:
        asked.set()
        return BUSY

    with stand_in(answer=answer) as server, running(tmp_path, run_file(tmp_path, server.url, "echo ran")) as runner:
        assert asked.wait(PATIENCE)
        runner.send_signal(signal.SIGTERM)
        out, _ = runner.communicate(timeout=PATIENCE)
    assert (runner.returncode, out) == (128, "")
    assert [report["minor_status"] for report in kept(tmp_path)] == ["KilledByBatch"]


def test_orphans_of_an_ended_payload_do_not_stay(tmp_path: Path) -> None:
    with stand_in() as server:
        code, out, _ = run_to_end(tmp_path, run_file(tmp_path, server.url, "setsid sleep 600 & echo $!"))
    assert code == 0
    assert not psutil.pid_exists(int(out.split()[0]))  # bash may tell of what was terminated


def test_flood_of_output_passes_and_leaves_its_end(tmp_path: Path) -> None:
    with stand_in() as server:
        run = run_file(tmp_path, server.url, "head -c 3000000 /dev/zero | tr '\\0' x; echo end")
        code, out, _ = run_to_end(tmp_path, run)
    assert (code, len(out)) == (0, 3000004)
    assert server.reports[-1]["log"].endswith("xxend")
    assert len(server.reports[-1]["log"]) <= 32 * 1024


def test_footprint_is_small(tmp_path: Path) -> None:
    """It is charged to every job slot: 45 MB at most, and none of the server's libraries."""
    with stand_in() as server, running(tmp_path, run_file(tmp_path, server.url, "echo up; sleep 600")) as runner:
        assert runner.stdout is not None
        runner.stdout.readline()
        process = psutil.Process(runner.pid)
        server.wait_for(lambda report: report["minor_status"] == "ExecutingApplication")
        assert process.memory_info().rss < 45 * 1024**2
        maps = {Path(entry.path).name for entry in process.memory_maps()}
        runner.send_signal(signal.SIGTERM)
        runner.wait(PATIENCE)
    assert not [name for name in maps if "pydantic" in name or "lxml" in name or "etree" in name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instance_id": "7"}, "instance_id: '7' is not int"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"input_files": [{"source": "a"}]}, r"input_files\[0\]: .*target"),
        ({"attributes": {"a": 1}}, "attributes: not an object of texts"),
        ({"limits": []}, "limits: not an object"),
    ],
)
def test_bad_run_file_is_refused_with_its_place(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "runs.jsonl"
    RunFile.save(path, [run_file(tmp_path, "http://x")])
    common, own = map(json.loads, path.read_text().splitlines())
    path.write_text(json.dumps(common) + "\n" + json.dumps(own | change))
    with pytest.raises(InvalidInput, match=rf"runs\.jsonl, element 1: {said}"):
        RunFile.load(path, 1)


def test_each_element_of_a_run_file_is_its_own_attempt(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    shared: dict[str, Any] = {"input_files": (FileToStage("a", "b", "root"),), "attributes": {"site": "x"}}
    group = [run_file(tmp_path, "http://x", instance_id=number, token=f"t{number}", **shared) for number in (1, 5, 9)]
    RunFile.save(path, group)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "t5" not in repr(group)
    assert [RunFile.load(path, element) for element in (1, 2, 3)] == group
    assert path.read_text().count("simulation") == 1  # what they share is written once
    with pytest.raises(InvalidInput, match="element 4: there is none"):
        RunFile.load(path, 4)


def test_unreadable_run_file_is_one_line(tmp_path: Path) -> None:
    with stand_in() as server, running(tmp_path, run_file(tmp_path, server.url)) as runner:
        runner.wait(PATIENCE)
    (tmp_path / "runs.jsonl").unlink()
    with pytest.raises(InvalidInput, match="cannot read run file"):
        RunFile.load(tmp_path / "runs.jsonl", 1)
