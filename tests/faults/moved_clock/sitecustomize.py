"""Moves the wall clock of a Python process by DWF_MOVED_CLOCK seconds, where this folder is on its PYTHONPATH.

libfaketime would do it for any program, but breaks the sleeping or the waiting of Python 3.11: these use monotonic
clocks in ways that it does not know.
"""

import datetime
import os
import time

SECONDS = float(os.environ["DWF_MOVED_CLOCK"])
_time = time.time


class MovedDatetime(datetime.datetime):
    """Datetimes that are as wrong as the clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "MovedDatetime":
        return cls.fromtimestamp(time.time(), tz)


time.time = lambda: _time() + SECONDS
datetime.datetime = MovedDatetime  # type: ignore[misc]
