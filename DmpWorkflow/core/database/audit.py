"""The audit log: who changed what, from where and when. Rows are only ever added and read.

Each operation that changes something for somebody notes it itself, within its transaction if it has one. So whoever
calls it, a page, the API or a command, there is a row. What payloads and agents report is the history of instances.
"""

import getpass
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document

LONGEST_TEXT = 200  # characters of a value
MOST_VALUES = 20  # of a list
ACTIONS = (
    "job.submit", "job.replace", "job.change", "job.clone", "job.remove",
    "instances.add", "instances.rollback", "instances.kill",
    "files.overwrite", "files.status", "files.delete",
    "token.create", "token.revoke",
    "user.create", "user.password", "user.disable", "user.enable", "user.remove",
    "login", "login.failed", "logout",
    "maintenance.run",
)  # fmt: skip


@dataclass(frozen=True)
class Actor:
    """Who changes something: a user or token with its role, from an ``address``; or somebody on the server itself."""

    name: str
    role: str
    address: str = ""


@cache
def this_program() -> Actor:
    """Return who runs this process."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as containers have them
        login = "somebody"
    return Actor(f"{login}@{socket.gethostname()}", "command line")


_who: ContextVar[Callable[[], Actor]] = ContextVar("who", default=this_program)


def ask_who(source: Callable[[], Actor]) -> None:
    """From here on in this thread, ``source`` says who changes something."""
    _who.set(source)


def note(
    database: Database,
    action: str,
    target: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    *,
    session: ClientSession | None = None,
    by: Actor | None = None,
) -> None:
    """Add a row: ``action`` is one of ACTIONS, ``target`` as in job/3f2a; of ``before`` and ``after`` what changes.

    With a ``session`` it is part of that transaction. Secrets do not belong in it.
    """
    actor = by or _who.get()()
    row = {
        "time": clock.now(),
        "who": _text(actor.name),
        "role": actor.role,
        "address": actor.address,
        "action": action,
        "target": _text(target),
        "before": _bounded(before or {}),
        "after": _bounded(after or {}),
    }
    database.audit.insert_one(row, session=session)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Document, Document]:
    """Return the fields of ``after`` that differ, as they were and as they are."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def about_job(job: Mapping[str, Any]) -> Document:
    """Return what names a job to people, also once it is removed."""
    return {"title": job["title"], "type": job["type"], "site": job["execution_site"]}


def job_target(database: Database, job: ObjectId) -> str:
    """Return how the log names a job."""
    found = database.jobs.find_one({"_id": job}, {"slug": 1})
    return f"job/{found['slug'] if found else job}"


def spans(numbers: Sequence[int]) -> str:
    """Return numbers of instances in short: 1-20, 35."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number <= parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = [f"{first}-{last}" if last > first else str(first) for first, last in parts[:MOST_VALUES]]
    return ", ".join(shown + (["..."] if len(parts) > MOST_VALUES else []))


def _bounded(values: Mapping[str, Any]) -> Document:
    return dict(_bounded_items(values))


def _bounded_items(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if value is None or isinstance(value, bool | int | float):
            yield name, value
        elif isinstance(value, list | tuple):
            more = [f"and {len(value) - MOST_VALUES} more"] if len(value) > MOST_VALUES else []
            yield name, [_text(item) for item in value[:MOST_VALUES]] + more
        else:
            yield name, _text(value)


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
