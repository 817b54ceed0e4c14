"""The fuzzer that is guided by coverage, for some seconds; ``scripts/fuzz --seconds 600`` is for a longer look."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_parsers_survive_some_seconds_of_fuzzing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this machine")
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), "--seconds", "3"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert done.stdout.startswith("seed ")
    assert done.stderr.count("stat::number_of_executed_units") == 3
    assert list(tmp_path.iterdir()) == []
