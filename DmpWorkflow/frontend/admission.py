"""Who is served when more ask than can be: reports, signs of life and claims before lists, and these before exports.

Each process has a number of threads. Lists may take a share of them and exports a small one, so that some are always
left for the sites' requests; who comes too many is answered 503 at once, with the seconds after which to come again.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import ClosingIterator

from DmpWorkflow.frontend import failures
from DmpWorkflow.frontend.access import RIGHTS, Right
from DmpWorkflow.utils.errors import Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


OF_SITES = (Right.REPORT, Right.FETCH, Right.REGISTER, Right.KNOWN, Right.PUBLIC)


class Overloaded(Unavailable):
    """The server has too much to do just now: try again in a few seconds."""


class Kind(IntEnum):
    """Kinds of requests, the most dispensable first."""

    EXPORT = 0  # whole tables: seconds to minutes of work
    LIST = 1  # whatever only reads, pages as well
    CHANGE = 2  # submissions, roll-backs, administration
    SITE = 3  # reports, signs of life, claims, registrations; and what costs next to nothing


class Bounds(NamedTuple):
    """How many requests of a kind, with the lower ones, are served at once; and how many may wait for a thread."""

    at_once: int
    waiting: int


def bounds(threads: int) -> dict[Kind, Bounds]:
    """Return the bounds of a process with so many threads."""
    return {
        Kind.EXPORT: Bounds(max(1, threads // 8), threads),
        Kind.LIST: Bounds(max(1, threads // 2), threads),
        Kind.CHANGE: Bounds(max(1, threads * 3 // 4), 4 * threads),
        Kind.SITE: Bounds(threads, 16 * threads),
    }


def kind_of(endpoint: str, right: Right | None) -> Kind:
    """Return the kind of a route that needs this right; files of the pages need none."""
    if right is None:
        return Kind.SITE
    if "export" in endpoint:
        return Kind.EXPORT
    if right is Right.READ:
        return Kind.LIST
    if right in OF_SITES and not endpoint.startswith("pages."):  # the log-in is public as well, and dear
        return Kind.SITE
    return Kind.CHANGE


class Admission:
    """The application behind a door; ``waiting`` tells how many connections wait for a thread now."""

    def __init__(self, app: Flask, threads: int, waiting: Callable[[], int]) -> None:
        self._app, self._bounds, self._waiting = app, bounds(threads), waiting
        self._kinds = {name: kind_of(name, getattr(view, RIGHTS, None)) for name, view in app.view_functions.items()}
        self._served: Counter[Kind] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve a request until its last byte is sent, or refuse it."""
        kind = self._kind(environ)
        if not self._enter(kind):
            return self._refuse(environ, start_response)
        try:
            reply = self._app(environ, start_response)
        except BaseException:
            self._leave(kind)
            raise
        return ClosingIterator(reply, partial(self._leave, kind))

    def _kind(self, environ: "WSGIEnvironment") -> Kind:
        try:
            endpoint, _ = self._app.url_map.bind_to_environ(environ).match()
        except HTTPException:  # no such route: told at once
            return Kind.SITE
        return self._kinds[endpoint]

    def _enter(self, kind: Kind) -> bool:
        at_once, waiting = self._bounds[kind]
        with self._lock:
            served = sum(self._served[other] for other in Kind if other <= kind)
            if served >= at_once or self._waiting() > waiting:
                return False
            self._served[kind] += 1
            return True

    def _leave(self, kind: Kind) -> None:
        with self._lock:
            self._served[kind] -= 1

    def _refuse(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with self._app.request_context(environ):
            reply = self._app.process_response(failures.answer(Overloaded()))
        return reply(environ, start_response)
