"""Quantities as people write them in configuration and job variables. Pure."""

import re

from DmpWorkflow.utils.errors import InvalidInput

_MEMORY = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{0,15})?)\s*(?P<unit>[kmgt]?)(?:b|bytes)?", re.IGNORECASE)
_MEGABYTES = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}
_KILOBYTES_FROM = 1_000_000  # a bare number this large is kB, as the original's sites write it
_CLOCK = re.compile(r"(?P<hours>[0-9]{1,6}):(?P<minutes>[0-5][0-9])(?::(?P<seconds>[0-5][0-9]))?")


def parse_memory(text: str) -> float:
    """Return MB (of 1024 kB) for ``4000``, ``4GB``, ``500mb`` and the like.

    A bare number is MB, one of a million or more kB. Raises InvalidInput for anything else and for zero.
    """
    match = _MEMORY.fullmatch(text.strip())  # its digits are bounded: others compute with what is returned
    number = float(match["number"]) if match else 0.0
    if not match or not number:
        raise InvalidInput(f"{text[:40]!r} is no amount of memory: expected MB as in 4000, or 4GB, 500mb")
    unit = match["unit"].lower() or ("k" if number >= _KILOBYTES_FROM else "m")
    return number * _MEGABYTES[unit]


def parse_clock(text: str) -> int:
    """Return seconds for ``HH:MM`` or ``HH:MM:SS``; hours may have six digits. Raises InvalidInput."""
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise InvalidInput(f"{text[:40]!r} is no time: expected HH:MM or HH:MM:SS")
    return int(match["hours"]) * 3600 + int(match["minutes"]) * 60 + int(match["seconds"] or 0)
