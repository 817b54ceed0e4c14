"""Tests the whole chain of a site, from its configuration to a probe job on a worker node."""

import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import DmpWorkflow
from DmpWorkflow.backend.command_backend import CommandBackend
from DmpWorkflow.backend.interface import PROBE_ATTEMPT, AttemptKey, Backend, Submission
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.backend.work_files import site_needs
from DmpWorkflow.client import Client
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.utils.errors import DmpWorkflowError, InvalidInput, Unavailable

PROBE = """\
#!/bin/bash
umask 077
{{
    echo "host=$(hostname)"
    if {python} -c 'import DmpWorkflow.backend.runner'; then echo runner=yes; else echo runner=no; fi
    if mkdir -p {root} && [ -w {root} ]; then echo root=yes; else echo root=no; fi
    if {python} -c 'import sys, requests; requests.get(sys.argv[1], timeout=20).raise_for_status()' {url}/health
    then echo server=yes; else echo server=no; fi
}} >{answer}.part 2>{folder}/probe.err
mv {answer}.part {answer}
"""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that was tested: ``problem`` is empty if it is well, and else says what to do."""

    name: str
    told: str
    problem: str = ""


def check(settings: Settings, client: Client, python: str, seconds: float) -> Iterator[Finding]:
    """Yield findings as they come; what cannot be tested because of an earlier problem is left out.

    ``seconds`` is how long the probe job may take to run.
    """
    findings = [_tried("server", lambda: _server(client)), _tried("token", lambda: _token(settings, client))]
    findings.append(_tried("work folder", lambda: _work_folder(settings)))
    yield from findings
    backends: list[Backend] = []
    commands = _tried("batch system", lambda: _commands(settings, backends))
    yield commands
    if commands.problem:
        return
    answers = _tried("queue", lambda: f"{len(backends[0].query())} jobs of ours")
    yield answers
    if not answers.problem and not findings[2].problem:
        yield from _probe(settings, backends[0], python, seconds)


def _tried(name: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(name, test())
    except (DmpWorkflowError, OSError) as error:
        return Finding(name, "", str(error))


def _server(client: Client) -> str:
    health = client.health()
    return (
        f"{client.url}: version {health['version']} (here {DmpWorkflow.__version__}), database {health['database']}"
    )


def _token(settings: Settings, client: Client) -> str:
    who = client.whoami()
    name = settings.site.name
    if who["role"] not in ("site", "admin"):
        raise InvalidInput(f"role {who['role']} cannot fetch work: dampe-server token create {name} --role site")
    if who["site"] not in (None, "", name):
        raise InvalidInput(f"it is for site {who['site']}, and [site] name is {name}: correct one of them")
    return f"{who['name']}, role {who['role']}" + (f" of {who['site']}" if who["site"] else "")


def _work_folder(settings: Settings) -> str:
    if not settings.site.workdir:
        raise InvalidInput("[site] workdir is not set: name a folder that this host and the worker nodes see")
    folder = Path(settings.site.workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInput(
            f"{folder}: {error.strerror}: set [site] workdir to a folder that can be written"
        ) from error
    free = os.statvfs(folder)
    return f"{folder}, {free.f_bavail * free.f_frsize / 1e9:.1f} GB free"


def _commands(settings: Settings, backends: list[Backend]) -> str:
    backend = make_backend(settings.site.hpc_system, settings)
    backends.append(backend)
    found = (
        [backend.commands.path(name) for name in backend.programs()] if isinstance(backend, CommandBackend) else []
    )
    return f"{backend.name}{': ' if found else ''}{', '.join(found)}"


def _probe(settings: Settings, backend: Backend, python: str, seconds: float) -> Iterator[Finding]:
    """Send a job that looks around on its worker node and leaves its answer in the work folder."""
    key = AttemptKey(uuid.uuid4().hex[:24], 0, PROBE_ATTEMPT)
    folder = Path(settings.site.workdir) / ".check" / key.job_id
    folder.mkdir(parents=True, mode=0o700)
    answer = folder / "answer"
    submission = _submission(key, folder, settings, python, answer)
    start = time.monotonic()
    result = backend.submit([submission])[0]
    if result.batch_id is None:
        yield Finding("probe job", "", f"it was not submitted: {result.error or result.later}")
        return
    last = "it was not seen in the queue"
    while not answer.exists() and time.monotonic() - start < seconds:
        time.sleep(POLL_SECONDS)
        last = _seen(backend, key) or last
    took = time.monotonic() - start
    if not answer.exists():
        with suppress(Unavailable):  # agents leave a probe alone, and it changes nothing
            backend.cancel([job for job in backend.query().values() if job.key == key])
            if ending := backend.endings({key: result.batch_id}).get(key):
                last = f"it ended: {ending.in_words}"
        yield Finding(
            "probe job",
            "",
            f"no answer within {took:.0f} s ({last}): does a worker node see {folder}? try --wait with more seconds",
        )
        return
    told = dict(line.partition("=")[::2] for line in answer.read_text().splitlines())
    yield Finding("probe job", f"ran on {told.get('host')} as {result.batch_id}, back after {took:.1f} s")
    yield from _on_worker(settings, told, python)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink()
    folder.rmdir()


def _seen(backend: Backend, key: AttemptKey) -> str:
    """Say what the queue tells of the probe, "" if nothing."""
    try:
        job = backend.query().get(key)
    except Unavailable as error:
        return str(error)
    return f"last seen as {job.status} {job.detail}".strip() if job else ""


def _submission(key: AttemptKey, folder: Path, settings: Settings, python: str, answer: Path) -> Submission:
    quoted = {
        "python": python,
        "root": settings.site.exec_dir_root,
        "url": settings.server.url.rstrip("/"),
        "answer": str(answer),
        "folder": str(folder),
    }
    script = folder / "script"
    script.write_text(PROBE.format(**{name: shlex.quote(value) for name, value in quoted.items()}))
    script.chmod(0o700)
    return Submission(key, script, 1, site_needs(settings))


def _on_worker(settings: Settings, told: dict[str, str], python: str) -> Iterator[Finding]:
    """Yield what the probe saw."""
    host = told.get("host", "worker")
    tests = {
        "runner": (
            "payload runner",
            f"{python} does not find DmpWorkflow on {host}: install it there, or give -p PYTHON",
        ),
        "root": ("EXEC_DIR_ROOT", f"{settings.site.exec_dir_root} cannot be written on {host}: set EXEC_DIR_ROOT"),
        "server": ("server from there", f"{host} does not reach {settings.server.url}: allow outbound HTTP"),
    }
    for word, (name, problem) in tests.items():
        well = told.get(word) == "yes"
        yield Finding(name, f"well on {host}" if well else "", "" if well else problem)
