"""A worker of the local backend whose disk is full, or whose job cannot be started."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from DmpWorkflow.backend import local_worker
from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.backend.local_spool import Record, Spool

KEY = AttemptKey("64b000000000000000000001", 7, 1)


def spool_with(folder: Path, command: str) -> Spool:
    spool = Spool(folder / "spool")
    spool.prepare()
    record: Record = KEY._asdict() | {"command": [command], "queued_at": 0.0}
    spool.queue(KEY.name, record)
    return spool


def work(spool: Spool) -> None:
    lock = spool.lock(0)
    assert lock is not None
    with lock:
        assert local_worker._run_next(spool, 0, lock.fileno())


def test_it_waits_for_a_full_disk_and_loses_no_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish, tries = Spool.finish, []

    def finish_on_a_full_disk(spool: Spool, *arguments: Any) -> None:
        tries.append(arguments)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finish(spool, *arguments)

    monkeypatch.setattr(Spool, "finish", finish_on_a_full_disk)
    monkeypatch.setattr(local_worker, "DISK_SECONDS", 0.01)
    spool = spool_with(tmp_path, "/bin/false")
    work(spool)
    assert len(tries) == 3
    assert LocalBackend(spool, 1).endings({KEY: KEY.name})[KEY].exit_code == 1


def test_what_could_not_start_says_why(tmp_path: Path) -> None:
    spool = spool_with(tmp_path, str(tmp_path / "no-such-script"))
    work(spool)
    ending = LocalBackend(spool, 1).endings({KEY: KEY.name})[KEY]
    assert (ending.minor_status, ending.exit_code) == ("BatchCouldNotStart", None)
    assert "no-such-script" in ending.detail
