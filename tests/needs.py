"""What a suite needs of the machine: missing, it is left out at home and fails where everything is required."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def need(*programs: str, package: str) -> None:
    """Skip the test, or fail it under DAMPE_REQUIRE_ALL, unless all these programs are on PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        _missing(f"{', '.join(missing)} is not installed (Debian: apt install {package})")


def _missing(message: str) -> NoReturn:
    if os.environ.get("DAMPE_REQUIRE_ALL"):
        pytest.fail(message)
    pytest.skip(message)


def faketime(shift: str) -> dict[str, str]:
    """Return the environment in which clocks are wrong by ``shift`` ("+1h"); skips or fails as ``need`` does."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        _missing("libfaketime is not installed (Debian: apt install libfaketime)")
    return {"LD_PRELOAD": str(library), "FAKETIME": shift}
