"""Refreshes: a page that is looked at asks for its live part again; many who look at the same share one answer."""

import functools
import threading
from collections.abc import Callable, Hashable
from typing import ParamSpec

from cachetools import TTLCache
from flask import Flask, current_app, request

from DmpWorkflow.frontend.access import own_jobs_only, owner, principal

Parameters = ParamSpec("Parameters")
GOOD_FOR = 2.0  # seconds; pages ask every five
MOST = 256  # different pages that are looked at
CACHE = "dampe_refreshes"


def init_app(app: Flask) -> None:
    """Give the application room for answers that are shared."""
    app.extensions[CACHE] = (TTLCache(MOST, GOOD_FOR), threading.Lock())


def is_refresh() -> bool:
    """Say whether a page asks for its live part only."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def shares_refreshes(view: Callable[Parameters, str]) -> Callable[Parameters, str]:
    """Let a view answer refreshes of one address and role once within a while; a page itself is always made anew.

    Those who may change their own jobs only are offered other things, and so get answers of their own.

    It stands below ``requires``, so that who may not see the page gets no shared answer either.
    """

    @functools.wraps(view)
    def answer(*arguments: Parameters.args, **values: Parameters.kwargs) -> str:
        if not is_refresh():
            return view(*arguments, **values)
        cache, lock = current_app.extensions[CACHE]
        with lock:
            known: str | None = cache.get(_key())
        if known is None:
            known = view(*arguments, **values)
            with lock:
                cache[_key()] = known
        return known

    return answer


def _key() -> Hashable:
    who = principal()
    return request.full_path, who.role, who.site, owner() if own_jobs_only() else ""
