"""Samples of CPU and memory that thin out instead of growing. Pure."""

from collections.abc import Sequence
from typing import TypeVar

LIMIT = 200  # samples kept per quantity and attempt

Sample = TypeVar("Sample")


def append_thinned(samples: Sequence[Sample], sample: Sample, limit: int = LIMIT) -> list[Sample]:
    """Return ``samples`` with ``sample`` at the end, never more than ``limit`` (at least 2) of them.

    A full list first loses every second one of its entries; the first stays, so that the whole run remains in
    view. Peaks can be thinned out: keep those apart.
    """
    kept = list(samples) if len(samples) < limit else list(samples[: limit - limit % 2 : 2])
    return [*kept, sample]
