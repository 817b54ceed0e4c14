"""Everything that a payload started: what it uses, and how to stop it.

Processes whose parent ended are given to the runner (it is their "subreaper"), so that a daemon that detached itself
is still seen. What it cannot see: memory between two looks, except the largest process of those that ended; and it
cannot stop a process that hangs in the kernel, which not even KILL ends.
"""

import contextlib
import ctypes
import logging
import os
import resource
import time
from collections.abc import Callable

import psutil

from DmpWorkflow.backend.watchdog import Usage

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
MEGABYTE = 1024**2
POLL_SECONDS = 0.05
KILL_SECONDS = 30.0  # after KILL, before a process counts as hanging in the kernel
SNAPSHOTS = 3  # tries to look at all processes without one of them ending meanwhile

logger = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def become_subreaper() -> None:
    """Make this process the new parent of all orphans among its descendants."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, signal_number: int) -> None:
    """Let the kernel send ``signal_number`` to this process when its parent ends; for use between fork and exec.

    It reaches this process only: what it started is then the batch system's to clean up.
    """
    _prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal_number)


class ProcessTree:
    """All descendants that this process gets after the tree was made.

    ``root`` is the pid of the payload's first process, once it is started: its owner waits for that one, while the
    tree itself waits for the orphans that come to this process.
    """

    def __init__(self) -> None:
        self.root: int | None = None
        self._me = psutil.Process()
        self._before = set(self._me.children())
        self._waited_before, self._largest_before = _waited_for(), _largest_ended()
        self._lost = 0.0  # CPU seconds of processes that nobody waited for
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What the last look found."""
        return self._usage

    def members(self) -> list[psutil.Process]:
        """Return the living processes of the tree; ended ones that nobody can wait for but us are waited for."""
        for _ in range(SNAPSHOTS):
            processes = self._after_reaping()
            living = [process for process in processes if not _is_zombie(process)]
            if living or not processes:
                break  # else all that were seen have ended since, and may have started what was not seen
        return living

    def _after_reaping(self) -> list[psutil.Process]:
        """Return the tree as ``_all``, once those that ended are waited for.

        Each look reads what the system tells of all its processes: there is a second one only if something ended,
        which may have left children that the first one did not see.
        """
        processes = self._all()
        ended = [process for process in processes if _is_zombie(process)]
        for process in ended:
            self._reap(process)
        return self._all() if ended else processes

    def _all(self) -> list[psutil.Process]:
        """Return the tree, parents before children, with those that ended and still wait for their parents."""
        processes = self._me.children(recursive=True)
        others = {process for known in self._before for process in [known, *_descendants(known)]}
        return [process for process in processes if process not in others]

    def _reap(self, ended: psutil.Process) -> None:
        if ended.pid != self.root:
            with contextlib.suppress(ChildProcessError):  # it has another parent, which will
                os.waitpid(ended.pid, os.WNOHANG)

    def sample(self) -> Usage:
        """Look at all processes. CPU seconds and the peak never decrease."""
        for _ in range(SNAPSHOTS):
            cpu, memory, complete = self._look()
            if complete:
                break
        cpu += self._lost
        if cpu < self._usage.cpu_seconds:
            if complete:  # ended, and not waited for by a parent that ignores SIGCHLD: count on from what was seen
                self._lost += self._usage.cpu_seconds - cpu
            cpu = self._usage.cpu_seconds
        largest = _largest_ended()
        peak = max(self._usage.peak_mb, memory, largest if largest > self._largest_before else 0.0)
        self._usage = Usage(cpu, memory, peak)
        return self._usage

    def _look(self) -> tuple[float, float, bool]:
        """Return CPU seconds, MB, and whether no process ended in between.

        The time of one that did may be missing; it is never counted twice, since parents are read first.
        """
        processes = self._after_reaping()
        cpu, memory, complete = _waited_for() - self._waited_before, 0.0, True
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss / MEGABYTE
            except psutil.Error:
                complete = False
                continue
            cpu += times.user + times.system + times.children_user + times.children_system
        return cpu, memory, complete and set(processes) <= set(self._all())

    def stop(self, seconds: float = 10.0, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Stop all processes: TERM, after ``seconds`` KILL, until none is left. ``meanwhile`` is called often."""
        told: set[psutil.Process] = set()
        deadline = time.monotonic() + seconds
        while (members := self.members()) and time.monotonic() < deadline:
            for process in set(members) - told:  # one TERM each: many programs take a second one as "at once"
                _signal(process.terminate)
            told |= set(members)
            meanwhile()
            time.sleep(POLL_SECONDS)
        if members:
            self._kill(meanwhile)

    def _kill(self, meanwhile: Callable[[], object]) -> None:
        deadline = time.monotonic() + KILL_SECONDS
        while members := self.members():
            for process in members:  # again and again: they may fork while we look
                _signal(process.kill)
            if time.monotonic() > deadline:
                logger.error("processes that KILL does not end: %s", [process.pid for process in members])
                return
            meanwhile()
            time.sleep(POLL_SECONDS / 10)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):
        send()


def _waited_for() -> float:
    """Return the CPU seconds of all descendants that were waited for, by us and by ours before us."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _largest_ended() -> float:
    """Return the peak in MB of the largest descendant that ended, 0 if that may be the copy of us before its exec."""
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1024 if largest > own else 0.0
