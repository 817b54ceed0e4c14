"""Sequences that are too long for one request, command or transaction."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def in_parts(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Split into parts of at most ``most``, in their order."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
