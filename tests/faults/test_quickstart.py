"""The quick start as a newcomer starts it, with real parts; it leaves no process behind."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from DmpWorkflow.client import Client
from DmpWorkflow.core.database.mongod import free_port

COMMAND = [sys.executable, "-m", "DmpWorkflow.frontend.quickstart"]
SECONDS = 120
LONG = (
    b"""<Jobs><Job name="long" type="User"><JobWrapper executable="/bin/bash">sleep 1000</JobWrapper></Job></Jobs>"""
)


def left_behind(data: Path) -> list[str]:
    """Return the command lines of processes that still work with this data folder."""
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(str(data) in word for word in process.info["cmdline"] or [])
    ]


def run_once(data: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "--once", "--data", str(data), "--port", str(free_port()), *options]
    return subprocess.run(command, text=True, capture_output=True, timeout=SECONDS, check=False)


def test_ten_instances_run_and_a_second_start_finds_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = run_once(data)
    assert first.returncode == 0, first.stderr
    assert "10 of 10 instances are Done." in first.stdout
    assert left_behind(data) == []
    tokens = json.loads((data / "quickstart.json").read_text())
    assert set(tokens) == {"url", "admin_token", "site_token", "mongodb_uri"}
    for name in ("quickstart.json", "server.cfg", "site.cfg", "admin.cfg"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    assert tokens["admin_token"] not in first.stdout + first.stderr
    second = run_once(data, "--instances", "3")
    assert second.returncode == 0, second.stderr
    assert "3 of 3 instances are Done." in second.stdout
    outputs = sorted(path.name for path in (data / "run" / "output" / "helloWorld").iterdir())
    assert outputs == [f"{number:06d}.dat" for number in range(1, 14)]
    assert json.loads((data / "quickstart.json").read_text())["admin_token"] == tokens["admin_token"]


def test_it_stays_until_it_is_stopped_and_stops_payloads_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [*COMMAND, "--data", str(data), "--port", str(free_port()), "--instances", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Press Ctrl-C" in line:
                break
        tokens = json.loads((data / "quickstart.json").read_text())
        with Client(tokens["url"], tokens["admin_token"]) as client:
            slug = client.create_job(LONG, site="local", instances=1)["jobs"][0]["slug"]
            deadline = time.monotonic() + SECONDS
            while client.job(slug)["counts"]["Running"] != 1:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert left_behind(data) == []


def test_a_failing_instance_is_an_exit_code(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "run").mkdir()
    (data / "run" / "output").write_text("in the way of the output folder")
    done = run_once(data, "--instances", "2")
    assert done.returncode == 1
    assert "0 of 2 instances are Done." in done.stdout
    assert left_behind(data) == []


def test_a_folder_that_cannot_be_made_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    done = run_once(tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"quickstart: {tmp_path}/run: File exists"
    assert "Traceback" not in done.stderr
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("options", [["--instances", "0"], ["--port", "99999"]])
def test_a_bad_option_is_one_plain_line(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, "--data", str(tmp_path), *options], text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert done.stderr.startswith("quickstart: ") and done.stderr.count("\n") == 1


def test_a_busy_port_is_one_plain_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--data", str(tmp_path), "--port", port],
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 6
    assert done.stderr.startswith(f"quickstart: port {port} cannot be used") and done.stderr.count("\n") == 1
