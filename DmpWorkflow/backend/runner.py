"""Runs one attempt on a worker node: ``python -m DmpWorkflow.backend.runner RUNFILE ELEMENT``.

Report the start, stage in, run under the watchdog, stage out, register, report the end. Nothing runs before the
server has accepted the first report, and nothing goes on once it has refused a later one. It is single-threaded
while it starts the payload; at other times a courier delivers reports, so that a slow server holds up nothing.
"""

import contextlib
import logging
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from DmpWorkflow.backend.environment import (
    PAYLOAD_FILE,
    make_folder,
    payload_command,
    payload_environment,
    remove_folder,
)
from DmpWorkflow.backend.process_tree import ProcessTree, become_subreaper, die_with
from DmpWorkflow.backend.reporter import AttemptRefused, Courier, Reporter, Sender, ServerNotReached, delivery_of
from DmpWorkflow.backend.run_file import FileToStage, RunFile
from DmpWorkflow.backend.staging import StagingError, stage
from DmpWorkflow.backend.watchdog import Usage, verdict
from DmpWorkflow.core.batch_id import normalise_batch_id
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.variables import expand
from DmpWorkflow.utils import log
from DmpWorkflow.utils.errors import DmpWorkflowError

STAGE_IN, PAYLOAD, STAGE_OUT, STOPPED = 4, 5, 6, 128  # exit codes
BATCH_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGXCPU)  # what batch systems send before KILL
LOG_LINES, LOG_BYTES = 100, 32 * 1024
MINOR_LIMIT = 100  # characters
HASTY_SECONDS = 5.0  # between TERM and KILL, when the batch system gives us no more than 10 to end
OWN_SIGNAL_SECONDS = 1.0  # a batch system's signal reaches payload and runner in any order

logger = logging.getLogger(__name__)


class Ended(DmpWorkflowError):
    """The attempt ended without success."""

    def __init__(self, status: MajorStatus, minor_status: str, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.minor_status, self.code = status, minor_status, code


class Killed(Ended):
    """A signal told the runner to end."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(MajorStatus.TERMINATED, "KilledByBatch", STOPPED, f"{name} from the batch system")


def camel_case(text: str) -> str:
    """Return ``text`` as a minor status: ``no space left`` -> ``NoSpaceLeft``."""
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", text))[:MINOR_LIMIT]


class Signals:
    """Raises Killed in the main thread at the first signal of the batch system, and wakes its ``select``."""

    def __init__(self) -> None:
        self.wake, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._armed = True
        for number in BATCH_SIGNALS:
            signal.signal(number, self._handle)
        signal.signal(signal.SIGUSR1, lambda *_: None)  # Grid Engine's warning of a suspension
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only signals with a handler wake up
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise Killed(number)

    def disarm(self) -> None:
        """From here on the outcome stands, and signals no longer change it."""
        self._armed = False

    def wake_up(self) -> None:
        """Wake the main thread from another one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)


class Output:
    """Passes the payload's output on to our own, and remembers its end."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        self._last = bytearray()
        self._passing = True

    def drain(self, most: int = 16) -> bool:
        """Take what is there, bounded, so that a flood does not blind the watchdog; False at the end of it."""
        for _ in range(most):
            try:
                chunk = os.read(self.read_end, 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._take(chunk)
        return True

    def _take(self, chunk: bytes) -> None:
        self._last = (self._last + chunk)[-LOG_BYTES:]
        if self._passing:
            try:
                _write_all(1, chunk)
            except OSError as error:  # the batch log's disk is full: the payload's work is worth more
                self._passing = False
                logger.error("cannot pass on the output: %s", error)

    def last_lines(self, message: str = "") -> str:
        """Return the end of the output and then ``message``, within the bounds of a log."""
        lines = [*self._last.decode(errors="replace").splitlines(), *message.splitlines()][-LOG_LINES:]
        return "\n".join(lines).encode()[-LOG_BYTES:].decode(errors="ignore")


def _write_all(descriptor: int, chunk: bytes) -> None:
    """Write around ``sys.stdout``: what that cannot flush at the end would change our exit code."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Runner:
    """One attempt, from its first to its last report."""

    def __init__(self, run: RunFile, sender: Sender) -> None:
        self._run = run
        self._signals, self._output = Signals(), Output()
        self._reporter = Reporter(run, sender)
        self._tree = ProcessTree()
        self._process: subprocess.Popen[bytes] | None = None
        self._refused = False
        self._code = STAGE_IN  # the exit code of the phase we are in
        variable = run.batch.batch_id_variable
        self._batch_id = normalise_batch_id(os.environ.get(variable)) if variable else None

    def run(self) -> int:
        """Run the attempt and return the exit code."""
        try:
            self._announce()
            self._work()
            self._keep_end(MajorStatus.DONE, "ApplicationComplete", "")
            self._deliver_end(self._run.linger_seconds)
        except AttemptRefused as error:
            return self._give_up(error)
        except Exception as error:
            try:
                return self._fail(_as_ended(error, self._code))
            except Killed as killed:  # the signal came before the failure was noted: it is only worse now
                return self._fail(killed)
        return 0

    def _announce(self) -> None:
        limits = self._run.limits
        self._reporter.announce(
            "PreparingJob",
            hostname=socket.gethostname(),
            batchId=self._batch_id,
            cpu_max=limits.cpu_seconds or None,
            mem_max=limits.memory_mb or None,
        )

    def _work(self) -> None:
        folder = make_folder(self._run, self._batch_id)
        environment = payload_environment(self._run, {**os.environ, "PWD": str(folder)})
        command = payload_command(self._run, environment, folder / ".dwf-start.sh")
        self._stage("PreparingInputData", self._run.input_files, folder, environment)
        self._code = PAYLOAD
        self._execute(command, folder, environment)
        self._code = STAGE_OUT
        targets = self._stage("PreparingOutputData", self._run.output_files, folder, environment)
        self._signals.disarm()
        os.chdir("/")
        remove_folder(folder)
        self._register(targets)

    def _register(self, targets: list[str]) -> None:
        types = [file.file_type for file in self._run.output_files]
        for file_type in dict.fromkeys(types):
            named = [target for target, its_type in zip(targets, types, strict=True) if its_type == file_type]
            self._reporter.keep_files(named, file_type)

    def _stage(
        self, minor_status: str, files: tuple[FileToStage, ...], folder: Path, environment: dict[str, str]
    ) -> list[str]:
        """Stage ``files``, whose relative names are those of ``folder``, and return their targets."""
        self._reporter.report(MajorStatus.RUNNING, minor_status)
        targets = []
        _enter(folder)
        with self._courier():
            for file in files:
                targets.append(stage(expand(file.source, environment), expand(file.target, environment)))
                self._check_refused()
        return targets

    def _courier(self) -> Courier:
        return Courier(self._reporter, self._run.interval_seconds, lambda: self._tree.usage, self._refuse)

    def _refuse(self) -> None:
        """Called in the courier's thread."""
        self._refused = True
        self._signals.wake_up()

    def _check_refused(self) -> None:
        if self._refused:
            raise AttemptRefused

    def _execute(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        (folder / PAYLOAD_FILE).write_text(self._run.script, encoding="utf-8")
        self._reporter.keep(MajorStatus.RUNNING, "ExecutingApplication")
        process = self._start(command, folder, environment)
        with self._courier() as courier:
            courier.poke()
            code = self._watch(process)
            self._stop_tree()  # what the payload left running belongs to it
        if code:
            self._explain_exit(code)

    def _start(self, command: list[str], folder: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        me = os.getpid()
        self._tree = ProcessTree()  # from here on: what staging used is not the payload's
        try:
            # no shell; and no other thread runs now, so that code between fork and exec is safe
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output.write_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with(me, signal.SIGKILL),
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126  # as a shell says it
            message = f"cannot run {command[0]}: {error.strerror}"
            raise Ended(MajorStatus.FAILED, f"ApplicationExitCode{code}", PAYLOAD, message) from error
        self._process, self._tree.root = process, process.pid
        os.close(self._output.write_end)
        return process

    def _watch(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for the end of the payload; raises Ended when it has used too much."""
        check = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals.wake, selectors.EVENT_READ, self._woken)
            selector.register(self._output.read_end, selectors.EVENT_READ, self._output.drain)
            while process.poll() is None:
                _serve(selector, max(0.0, check - time.monotonic()))
                self._check_refused()
                if time.monotonic() >= check:
                    self._check_usage()
                    check = time.monotonic() + self._run.check_seconds
        return process.returncode

    def _woken(self) -> bool:
        self._signals.clear()
        return True

    def _check_usage(self) -> None:
        usage, limits = self._tree.sample(), self._run.limits
        if minor_status := verdict(usage, limits):
            used = f"{usage.cpu_seconds:.0f} s of {limits.cpu_seconds:.0f} s CPU time, "
            used += f"{usage.memory_mb:.0f} MB of {limits.memory_mb:.0f} MB memory"
            raise Ended(MajorStatus.TERMINATED, minor_status, STOPPED, f"stopped by the watchdog: {used}")

    def _explain_exit(self, code: int) -> NoReturn:
        if code == -signal.SIGTERM:
            time.sleep(OWN_SIGNAL_SECONDS)  # if the batch system sent it, ours comes now and raises Killed
        code = code if code > 0 else 128 - code  # as a shell says it
        message = f"the payload ended with exit code {code}"
        raise Ended(MajorStatus.FAILED, f"ApplicationExitCode{code}", PAYLOAD, message)

    def _stop_tree(self, most_seconds: float = math.inf) -> None:
        self._tree.stop(min(self._run.stop_seconds, most_seconds), self._output.drain)
        self._output.drain()
        if self._process:
            self._process.poll()  # wait for it, if it was stopped
        self._tree.sample()

    def _keep_end(self, status: MajorStatus, minor_status: str, message: str) -> None:
        usage: Usage = self._tree.usage
        self._reporter.keep(
            status,
            minor_status,
            cpu=round(usage.cpu_seconds, 2),
            memory=round(usage.peak_mb, 1),
            log=self._output.last_lines(message),
        )

    def _deliver_end(self, seconds: float) -> None:
        done = self._reporter.linger(seconds)
        if done.refused:
            raise AttemptRefused
        if done.left:
            logger.warning("%d reports are left for the agent to deliver", done.left)

    def _fail(self, ended: Ended) -> int:
        """Report a failure: kept first, since a batch system that wants us to end may not wait for the rest."""
        self._signals.disarm()
        logger.error("%s", ended)
        self._tree.sample()
        self._output.drain()
        self._keep_end(ended.status, ended.minor_status, str(ended))
        self._stop_tree(HASTY_SECONDS if isinstance(ended, Killed) else math.inf)
        hasty = isinstance(ended, Killed) or isinstance(ended.__cause__, ServerNotReached)
        with contextlib.suppress(AttemptRefused):
            self._deliver_end(0.0 if hasty else self._run.linger_seconds)
        return ended.code

    def _give_up(self, error: AttemptRefused) -> int:
        self._signals.disarm()
        logger.error("%s", error)
        self._stop_tree()
        self._reporter.discard()
        return STOPPED


def _enter(folder: Path) -> None:
    try:
        os.chdir(folder)
    except FileNotFoundError as error:
        raise Ended(MajorStatus.FAILED, "WorkFolderGone", STAGE_OUT, f"{folder} was removed meanwhile") from error


def _serve(selector: selectors.BaseSelector, seconds: float) -> None:
    for key, _ in selector.select(seconds):
        handle: Callable[[], bool] = key.data
        if not handle():
            selector.unregister(key.fileobj)


def _as_ended(error: Exception, code: int) -> Ended:
    """Return what to report for ``error``; of one that nobody foresaw, the log gets the trace."""
    if isinstance(error, Ended):
        return error
    if isinstance(error, StagingError):
        minor_status = error.reason
    elif isinstance(error, ServerNotReached):
        minor_status, code = "server not reached", STOPPED
    elif isinstance(error, OSError):
        minor_status = error.strerror or "input output error"
    elif isinstance(error, DmpWorkflowError):
        minor_status = str(error)
    else:
        logger.error("unexpected error", exc_info=error)
        minor_status = f"unexpected {type(error).__name__}"
    ended = Ended(MajorStatus.FAILED, camel_case(minor_status), code, str(error))
    ended.__cause__ = error
    return ended


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Say in one line why the runner could not even begin."""
    try:
        yield
    except (DmpWorkflowError, OSError) as error:
        logger.error("%s", error)
        sys.exit(STOPPED)


def main(arguments: list[str]) -> int:
    log.set_up("%(asctime)s dwf-runner %(levelname)s %(message)s", logging.INFO)
    if len(arguments) != 2 or not re.fullmatch("[1-9][0-9]{0,8}", arguments[1]):
        print("usage: python -m DmpWorkflow.backend.runner RUNFILE ELEMENT", file=sys.stderr)
        return 2
    with _plain_errors():
        run = RunFile.load(Path(arguments[0]), int(arguments[1]))
        become_subreaper()
        sender = Sender(delivery_of(run))
        return Runner(run, sender).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
