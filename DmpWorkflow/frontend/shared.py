"""Answers that many readers share: one query for all who look at the same within a few seconds."""

import threading
from collections.abc import Callable, Hashable
from typing import Concatenate, ParamSpec, TypeVar

from cachetools import TTLCache, cached
from cachetools.keys import hashkey

from DmpWorkflow.core.database.connection import Database

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Query = Callable[Concatenate[Database, Parameters], Answer]
MOST = 512  # different questions that are remembered


def shared(seconds: float) -> Callable[[Query[Parameters, Answer]], Query[Parameters, Answer]]:
    """Let the answer of a query be good for so many seconds; who asks while it is made waits for it."""

    def key(database: Database, *values: Hashable, **named: Hashable) -> tuple[Hashable, ...]:
        return hashkey(id(database), *values, **named)

    def decorate(query: Query[Parameters, Answer]) -> Query[Parameters, Answer]:
        cache: TTLCache[tuple[Hashable, ...], Answer] = TTLCache(MOST, seconds)
        return cached(cache, key=key, condition=threading.Condition())(query)

    return decorate
