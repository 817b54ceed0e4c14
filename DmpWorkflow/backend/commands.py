"""Runs the commands of a batch system: no shell, bounded time, and one language."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from DmpWorkflow.config.settings import Settings
from DmpWorkflow.utils.errors import Unavailable

DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_")  # variables of a user that would narrow what we ask for


@dataclass(frozen=True)
class Output:
    """What a command printed, and its exit code."""

    command: str
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What it complained about, as one line."""
        words = (self.err.strip() or self.out.strip()).splitlines()
        return "; ".join(line.strip() for line in words if line.strip())[:2000] or f"exit code {self.code}"

    def unavailable(self) -> Unavailable:
        """Return the error that says that the batch system gave no answer."""
        return Unavailable(f"{self.command}: exit code {self.code}: {self.message}")


@dataclass(frozen=True)
class Commands:
    """The commands of one installation: in ``folder``, or on PATH; each may take ``seconds``."""

    folder: str = ""
    seconds: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings, **environment: str) -> "Commands":
        """Make them of HPCbin and HPCtimeout; ``environment`` is added to our own."""
        return cls(settings.site.hpc_bin, settings.site.hpc_timeout, environment)

    def path(self, program: str) -> str:
        """Return where a program is; raises Unavailable if there is none."""
        if found := shutil.which(program, path=self.folder or None):
            return found
        where = f"in HPCbin = {self.folder}" if self.folder else "on PATH"
        raise Unavailable(f"{program} is not {where}: set [site] HPCbin to the folder of the batch system's commands")

    def run(self, program: str, *arguments: str, text: str = "") -> Output:
        """Run a command with ``text`` as its input. Raises Unavailable if it is missing or takes too long."""
        path = self.path(program)
        ours = {name: value for name, value in os.environ.items() if not name.startswith(DEFAULTS)}
        environment = {**ours, **self.environment, "LC_ALL": "C", "LANG": "C"}
        if self.folder:
            environment["PATH"] = f"{Path(self.folder)}{os.pathsep}{environment.get('PATH', os.defpath)}"
        try:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                [path, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"{path} cannot be run: {error.strerror}") from error
        with process:
            try:
                out, err = process.communicate(text.encode(), timeout=self.seconds)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it started, which holds our pipes
                raise Unavailable(f"{program}: no answer within {self.seconds:g} s ([site] HPCtimeout)") from None
        return Output(program, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
