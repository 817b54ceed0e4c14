"""The agent of a site: one cycle after the other, each safe to be stopped anywhere and started again."""

import gc
import logging
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from DmpWorkflow.backend.cycle import Cycle, CycleResult, Limits
from DmpWorkflow.backend.interface import Backend
from DmpWorkflow.backend.journal import agent_folder, opened
from DmpWorkflow.client import Client
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.utils.errors import ConfigurationError, DmpWorkflowError, Unavailable

log = logging.getLogger(__name__)

JITTER = 0.1  # share of the pause between cycles, so that agents do not all come at once


def run_cycle(
    settings: Settings,
    client: Client,
    backend: Backend,
    limits: Limits,
    python: str = "",
) -> CycleResult:
    """Run one cycle. Raises Unavailable if server or batch system do not answer, Conflict beside another agent."""
    if not settings.site.workdir:
        raise ConfigurationError("[site] workdir is not set: the agent keeps work folders and its journal there")
    folder = agent_folder(Path(settings.site.workdir), settings.site.name, settings.site.agent)
    with _without_collector(), opened(folder) as journal:
        try:
            return Cycle(settings, client, backend, journal, python).run(limits)
        except OSError as error:
            place = error.filename or settings.site.workdir
            raise Unavailable(f"{place}: {error.strerror}: check [site] workdir and its disk") from error


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spare the search for cycles of references: it would walk over all that a cycle holds, again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def run_loop(settings: Settings, client: Client, backend: Backend, limits: Limits, pause: float, python: str) -> None:
    """Run cycles with ``pause`` seconds between them until SIGTERM or SIGINT; a failed one is logged."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.is_set():
        try:
            log.info("%s", run_cycle(settings, client, backend, limits, python).in_words())
        except DmpWorkflowError as error:
            log.error("%s", error)
        stop.wait(pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads load, guards nothing
