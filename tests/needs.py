"""What a suite needs of the machine: missing, it is left out at home and fails where everything is required."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest


def need(*programs: str, package: str) -> None:
    """Skip the test, or fail it under DAMPE_REQUIRE_ALL, unless all these programs are on PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        _missing(f"{', '.join(missing)} is not installed (Debian: apt install {package})")


def _missing(message: str) -> NoReturn:
    if os.environ.get("DAMPE_REQUIRE_ALL"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def faketime(shift: str) -> Iterator[dict[str, str]]:
    """Give the environment in which clocks are wrong by ``shift`` ("+1h"); skips or fails as ``need`` does."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        _missing("libfaketime is not installed (Debian: apt install libfaketime)")
    wrong = {"LD_PRELOAD": str(library), "FAKETIME": shift}
    # The first process of a family has memory that all share, and takes it away as it ends: so this one ends last.
    first = ["sh", "-c", 'echo "$FAKETIME_SHARED"; read line']
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(first, env=os.environ | wrong, **pipes) as holder:
        assert holder.stdout is not None
        yield wrong | {"FAKETIME_SHARED": holder.stdout.readline().strip()}
