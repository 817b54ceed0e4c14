"""Sequences that are too long for one request, command or transaction."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def in_parts(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Split into parts of at most ``most``, in their order; no more than one part is taken from ``items`` ahead."""
    rest = iter(items)
    while part := list(islice(rest, most)):
        yield part
