"""A Python with the package that another user can run: the one that runs the tests may be in a private home."""

import compileall
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("psutil", "requests", "urllib3", "certifi", "idna", "charset_normalizer", "lxml")  # by agent and payload


def make_worker_python(folder: Path) -> str:
    """Copy package and libraries into ``folder``, and return a program there that runs Python with them."""
    library = folder / "lib"
    sources = [ROOT / "DmpWorkflow", ROOT / "tests"]
    sources += [Path(str(found.origin)).parent for name in NEEDED if (found := find_spec(name))]
    for source in sources:
        shutil.copytree(source, library / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    # compiled, as pip does it: that user may not write here
    compileall.compile_dir(library, quiet=2)
    for path in library.rglob("*"):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(library))} exec {_interpreter()} "$@"\n')
    program.chmod(0o755)
    return str(program)


def _interpreter() -> str:
    """Return a Python of our version that everybody may run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [Path(sys.executable).resolve(), Path("/usr/bin") / version]
    for candidate in candidates:
        if candidate.exists() and all(os.stat(parent).st_mode & 0o001 for parent in candidate.parents):
            return shlex.quote(str(candidate))
    pytest.skip(f"no {version} that another user may run: Debian's package is {version}")
