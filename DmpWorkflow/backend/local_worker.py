"""A worker of the local backend: ``python -m DmpWorkflow.backend.local_worker SPOOL SLOT``.

It runs queued jobs one after the other in its slot, and ends when there are none. It needs no agent.
"""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from DmpWorkflow.backend.local_spool import Record, Spool, split_running

BATCH_ID_VARIABLE = "DWF_LOCAL_ID"
STOP_SECONDS = 10.0  # between TERM and KILL, for what a runner left that was killed
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_SECONDS = 1.0  # between two looks whether a full disk has room again


def main(spool: Spool, slot: int) -> int:
    """Work until the queue is empty; ends at once if the slot is in use."""
    lock = spool.lock(slot)
    if lock is None:
        return 0
    from DmpWorkflow.backend.process_tree import become_subreaper  # here: the agent waits while we are loaded

    become_subreaper()
    os.dup(lock.fileno())  # held to the last: who finds the slot free finds no worker either
    _record_vanished(spool, slot)
    while _run_next(spool, slot, lock.fileno()):
        pass
    return 0


def _record_vanished(spool: Spool, slot: int) -> None:
    """Write down jobs of this slot whose worker was killed: the lock was free, so nothing of them runs any more."""
    for stem, record in list(spool.records("running")):
        batch_id, their_slot = split_running(stem)
        if their_slot == slot:
            _patiently(partial(spool.finish, batch_id, slot, record))


def _patiently(write: Callable[[], None]) -> None:
    """Write what must not be lost, as soon as the disk has room."""
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
            print(f"local worker: {error}: trying again", file=sys.stderr)
            time.sleep(DISK_SECONDS)


def _run_next(spool: Spool, slot: int, lock: int) -> bool:
    """Run the oldest queued job; False if there is none."""
    for batch_id, record in sorted(spool.records("queued"), key=lambda item: item[1]["queued_at"]):
        if spool.take(batch_id, slot):
            _run(spool, slot, batch_id, record, lock)
            return True
    return False


def _run(spool: Spool, slot: int, batch_id: str, record: Record, lock: int) -> None:
    from DmpWorkflow.backend.process_tree import ProcessTree

    tree = ProcessTree()
    try:
        process = _start(batch_id, record, lock)
    except OSError as error:
        failed = record | {"error": str(error)}
        _patiently(partial(spool.finish, batch_id, slot, failed))
        return
    _patiently(partial(spool.note, batch_id, slot, record | {"pid": process.pid}))
    code = process.wait()
    tree.stop(STOP_SECONDS)
    _patiently(partial(spool.finish, batch_id, slot, record | {"returncode": code}))


def _start(batch_id: str, record: Record, lock: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - the script that our agent wrote, no shell
        record["command"],
        cwd="/",
        env=os.environ | {BATCH_ID_VARIABLE: batch_id},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock],
    )


if __name__ == "__main__":
    if os.fork():  # the agent waits for this process only
        os._exit(0)
    sys.exit(main(Spool(Path(sys.argv[1])), int(sys.argv[2])))
