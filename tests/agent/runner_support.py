"""What the tests of the payload side share."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from DmpWorkflow.backend.run_file import RunFile, RunSite

OK = (200, {"result": "ok"})
STALE = (409, {"result": "nok", "error": "attempt 1 is not current: stop"})
BUSY = (503, {"result": "nok", "error": "not now"})
PATIENCE = 60.0  # seconds before an event that does not come fails a test

Reply = tuple[int, Any]
Report = dict[str, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing when a client went away: some tests kill it."""


class StandIn:
    """A real HTTP server on 127.0.0.1 that stands in for the API: it records what comes and answers by a script.

    ``answer`` gets each status report and returns HTTP status and body.
    """

    def __init__(self, port: int = 0, answer: Callable[[Report], Reply] = lambda report: OK) -> None:
        self.answer = answer
        self.reports: list[Report] = []
        self.forms: list[dict[str, list[str]]] = []
        self.answer_forms = OK
        self.tokens: set[str | None] = set()
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def statuses(self) -> list[tuple[str, str | None]]:
        """Return what was reported, without samples."""
        with self._changed:
            found = [(report["major_status"], report["minor_status"]) for report in self.reports]
        return [(major, minor) for major, minor in found if minor is not None]

    def wait_for(self, wanted: Callable[[Report], bool]) -> Report:
        """Wait for a report that is ``wanted``, and return it."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self.reports)), PATIENCE), self.reports
            return next(filter(wanted, self.reports))

    def _take(self, path: str, body: bytes, token: str | None) -> Reply:
        with self._changed:
            self.tokens.add(token)
            if path == "/datacat/":
                self.forms.append(parse_qs(body.decode()))
                return self.answer_forms
            report = json.loads(body)["args"]
            reply = self.answer(report)
            if reply == OK:
                self.reports.append(report)
            self._changed.notify_all()
            return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, content = stand_in._take(self.path, body, self.headers["Authorization"])
                text = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                if status in (302, 307):
                    self.send_header("Location", "http://127.0.0.1:1/stolen")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Keep the test's output quiet."""

        return Handler


@contextmanager
def stand_in(port: int = 0, answer: Callable[[Report], Reply] = lambda report: OK) -> Iterator[StandIn]:
    server = StandIn(port, answer)
    try:
        yield server
    finally:
        server.close()


def run_file(folder: Path, url: str, script: str = "", **changes: Any) -> RunFile:
    """Return a run file whose every path lies in ``folder``; ``script`` is for bash."""
    run = RunFile(
        server_url=url,
        token="secret-of-this-attempt",
        job_id="64b000000000000000000001",
        instance_id=7,
        attempt=1,
        outbox=str(folder / "outbox"),
        title="simulation",
        type="Generation",
        script=script,
        site=RunSite(name="bari", exec_dir_root=str(folder / "exec")),
        check_seconds=0.05,
        grace_seconds=PATIENCE,
        stop_seconds=PATIENCE,
        linger_seconds=0.0,
    )
    return replace(run, **changes)


@contextmanager
def running(folder: Path, run: RunFile, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Start a runner as a site does, and leave none behind."""
    path = folder / "runs.jsonl"
    RunFile.save(path, [run])
    command = [sys.executable, "-m", "DmpWorkflow.backend.runner", str(path), "1"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def run_to_end(folder: Path, run: RunFile, **options: Any) -> tuple[int, str, str]:
    """Run a runner; return its exit code, output and log."""
    with running(folder, run, **options) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


def kept(folder: Path) -> list[Report]:
    """Return the reports that wait in the outboxes below ``folder``, in order."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outbox/*/[0-9]*.json"))]
