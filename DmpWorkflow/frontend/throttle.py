"""Whoever fails too often to prove who they are has to wait.

Only failures count, and a good token is never held up: behind the address of a site there may be a thousand payloads.
The counters are in the database, since in memory each worker process, and each of several servers, would count for
itself; and nothing but failures asks for them.
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import timedelta

from DmpWorkflow.core.database import clock, failed_tries
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.failed_tries import Tries
from DmpWorkflow.frontend import transport
from DmpWorkflow.utils.errors import DmpWorkflowError


@dataclass(frozen=True)
class Limit:
    """How often something may be wrong within a time, and what that is in words."""

    name: str
    most: int
    window: timedelta
    words: str


AS_ONE = Limit("login", 10, timedelta(minutes=5), "passwords of this user")  # from anywhere
FROM_ONE = Limit("login-from", 30, timedelta(minutes=5), "passwords from this address")
TOKENS_FROM_ONE = Limit("token-from", 100, timedelta(minutes=1), "tokens from this address")


class TooManyFailures(DmpWorkflowError):
    """Too many credentials were wrong; ``retry_after`` says for how many seconds they are not looked at."""

    http_status = 429
    transient = True

    def __init__(self, what: str, until: timedelta) -> None:
        self.retry_after = max(1, math.ceil(until.total_seconds()))
        super().__init__(f"too many {what} were wrong: try again in {self.retry_after} s")


def check_login(database: Database, name: str) -> None:
    """Raise TooManyFailures if nobody may log in now under this name, or from where the request comes."""
    for limit, of in _logins(name):
        tries = failed_tries.of(database, _key(limit, of))
        if tries.number >= limit.most:
            _refuse(limit, tries)


def note_failed_login(database: Database, name: str) -> None:
    """Count a log-in that failed."""
    for limit, of in _logins(name):
        failed_tries.note(database, _key(limit, of), limit.window)


def note_unknown_token(database: Database) -> None:
    """Count a token that nobody knows; raises TooManyFailures where these are too many."""
    limit = TOKENS_FROM_ONE
    tries = failed_tries.note(database, _key(limit, transport.network()), limit.window)
    if tries.number > limit.most:
        _refuse(limit, tries)


def _logins(name: str) -> tuple[tuple[Limit, str], ...]:
    # The name by its digest: it may be a text of any length.
    return (AS_ONE, hashlib.sha256(name.encode(errors="replace")).hexdigest()), (FROM_ONE, transport.network())


def _key(limit: Limit, of: str) -> str:
    return f"{limit.name}/{of}"


def _refuse(limit: Limit, tries: Tries) -> None:
    raise TooManyFailures(limit.words, tries.until - clock.now())
