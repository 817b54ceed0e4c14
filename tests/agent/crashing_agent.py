"""Runs one cycle of an agent that kills itself at a chosen point: CONFIG POINT before|after NUMBER [PYTHON]."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DmpWorkflow.backend import agent, work_files
from DmpWorkflow.backend.commands import Commands
from DmpWorkflow.backend.cycle import Limits
from DmpWorkflow.backend.journal import Journal
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load

POINTS: dict[str, tuple[Any, str]] = {
    "journal": (Journal, "save"),
    "intent": (Journal, "open_claim"),
    "closing": (Journal, "close_claim"),
    "heartbeat": (Client, "agent_heartbeat"),
    "claim": (Client, "claim"),
    "prepare": (work_files, "prepare"),
    "queue": (LocalBackend, "_queue"),
    "command": (Commands, "run"),
    "report": (Client, "report_many"),
}


def arm(point: str, when: str, number: int) -> None:
    """Make the ``number``-th call of a function the last thing that this process does."""
    owner, name = POINTS[point]
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **values)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


if __name__ == "__main__":
    settings = load(Path(sys.argv[1])).settings
    backend = make_backend(settings.site.hpc_system, settings)
    POINTS["submit"] = (type(backend), "submit")
    if sys.argv[2] != "nowhere":
        arm(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    with Client(settings.server.url, settings.server.token, patience=settings.server.patience) as client:
        agent.run_cycle(settings, client, backend, Limits(5), "".join(sys.argv[5:]))
