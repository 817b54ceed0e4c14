"""Whoever fails too often to prove who they are has to wait.

Only failures count, and a good token is never held up: behind the address of a site there may be a thousand payloads.
The counters are in the database, since in memory each worker process, and each of several servers, would count for
itself; and nothing but failures asks for them.
"""

import hashlib
import math
import time

from flask import Flask, current_app
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MongoDBStorage
from limits.strategies import FixedWindowRateLimiter

from DmpWorkflow.config.settings import DatabaseSettings
from DmpWorkflow.frontend import transport
from DmpWorkflow.utils.errors import DmpWorkflowError

LOGINS_AS_ONE = RateLimitItemPerMinute(10, 5)  # that fail, with one user name from anywhere, in 5 minutes
LOGINS_FROM_ONE = RateLimitItemPerMinute(30, 5)  # that fail, from one address
TOKENS_FROM_ONE = RateLimitItemPerMinute(100)  # that nobody knows, from one address
EXTENSION = "dampe_throttle"


class TooManyFailures(DmpWorkflowError):
    """Too many credentials were wrong; ``retry_after`` says for how many seconds they are not looked at."""

    http_status = 429
    transient = True

    def __init__(self, what: str, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(f"too many {what} were wrong: try again in {self.retry_after} s")


def init_app(app: Flask, database: DatabaseSettings) -> None:
    """Count failures in the database of the application; nothing is asked of it yet."""
    storage = MongoDBStorage(
        database.address,
        database_name=database.name,
        counter_collection_name="failed_credential",
        window_collection_name="failed_credential_window",
        serverSelectionTimeoutMS=5000,
    )
    app.extensions[EXTENSION] = FixedWindowRateLimiter(storage)


def check_login(name: str) -> None:
    """Raise TooManyFailures if nobody may log in now under this name, or from where the request comes."""
    _check(LOGINS_AS_ONE, "login", _digest(name), what="passwords of this user")
    _check(LOGINS_FROM_ONE, "login-from", transport.network(), what="log-ins from this address")


def note_failed_login(name: str) -> None:
    """Count a log-in that failed."""
    _counters().hit(LOGINS_AS_ONE, "login", _digest(name))
    _counters().hit(LOGINS_FROM_ONE, "login-from", transport.network())


def note_unknown_token() -> None:
    """Count a token that nobody knows; raises TooManyFailures where these are too many."""
    if not _counters().hit(TOKENS_FROM_ONE, "token", transport.network()):
        _refuse(TOKENS_FROM_ONE, "token", transport.network(), what="tokens from this address")


def _check(limit: RateLimitItem, *key: str, what: str) -> None:
    if not _counters().test(limit, *key):
        _refuse(limit, *key, what=what)


def _refuse(limit: RateLimitItem, *key: str, what: str) -> None:
    raise TooManyFailures(what, _counters().get_window_stats(limit, *key).reset_time - time.time())


def _counters() -> FixedWindowRateLimiter:
    counters: FixedWindowRateLimiter = current_app.extensions[EXTENSION]
    return counters


def _digest(name: str) -> str:
    """Return what stands for a name, which may be a text of any length."""
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()
