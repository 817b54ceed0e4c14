"""What a suite needs of the machine: missing, it is left out at home and fails where everything is required."""

import os
import shutil

import pytest


def need(*programs: str, package: str) -> None:
    """Skip the test, or fail it under DAMPE_REQUIRE_ALL, unless all these programs are on PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        message = f"{', '.join(missing)} is not installed (Debian: apt install {package})"
        if os.environ.get("DAMPE_REQUIRE_ALL"):
            pytest.fail(message)
        pytest.skip(message)
