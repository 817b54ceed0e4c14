"""What the original stored, as this program stores it. No database is asked here.

Its times are those of its server's clock on the wall; ``status_history`` has them as text. Its references are ids, or
DBRefs from early versions of its library.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from bson import DBRef, ObjectId

from DmpWorkflow.core.batch_id import normalise_batch_id
from DmpWorkflow.core.database.connection import Document
from DmpWorkflow.core.database.creation import AWAITING
from DmpWorkflow.core.database.jobs import NewJob
from DmpWorkflow.core.database.status_report import HISTORY_LIMIT, LOG_LIMIT, last_line
from DmpWorkflow.core.job_definition import JobDefinition
from DmpWorkflow.core.job_xml import InvalidJobDefinition, parse_jobs, serialise_jobs
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from DmpWorkflow.core.literals import dictionary
from DmpWorkflow.core.names import LONGEST_TITLE
from DmpWorkflow.core.overrides import from_mapping
from DmpWorkflow.core.samples import append_thinned
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.text import printable

QUARTER = timedelta(minutes=15)  # all offsets change at the full quarter of an hour
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
ARCHIVED_JOB = "ArchivedJob"
UNREADABLE_OVERRIDES = "UnreadableOverrides"

Doubt = Callable[[str, str], None]  # what is doubtful, and what it is about


class Times:
    """Converts times of a clock on the wall in ``zone``; what is not clear is told to ``doubt``."""

    def __init__(self, zone: ZoneInfo, doubt: Doubt) -> None:
        self._zone = zone
        self._doubt = doubt

    def aware(self, value: object, about: str) -> datetime | None:
        """Return the time in UTC; None for what is none."""
        local = _parsed(value) if isinstance(value, str) else value
        if not isinstance(local, datetime):
            if value is not None:
                self._doubt("a time that cannot be read", about)
            return None
        if local.tzinfo is not None:
            return local.astimezone(UTC)
        offset, problem = _offset(local - (local - datetime.min) % QUARTER, self._zone)
        if problem:
            self._doubt(problem, about)
        return (local - offset).replace(tzinfo=UTC, microsecond=local.microsecond // 1000 * 1000)


@lru_cache(maxsize=10_000)
def _offset(quarter: datetime, zone: ZoneInfo) -> tuple[timedelta, str]:
    """Return the zone's offset in a quarter of an hour, and what is not clear about it."""
    first, second = (quarter.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    if first == second:
        return first, ""
    if first > second:
        return first, "a time that came twice, when clocks were set back: taken as the first"
    return first, "a time that there was not, when clocks were set forward"


def _parsed(text: str) -> datetime | None:
    """Read "Thu Sep  1 12:00:00 2016", as C writes it in every language, or ISO 8601."""
    try:
        _, month, day, clock, year = text.split()
        hour, minute, second = map(int, clock.split(":"))
        return datetime(int(year), MONTHS.index(month) + 1, int(day), hour, minute, second)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def reference(value: object) -> ObjectId | None:
    """Return the id that a reference has; None for what is none."""
    found = value.id if isinstance(value, DBRef) else value
    return found if isinstance(found, ObjectId) else None


def number(value: object) -> int | None:
    """Return a positive whole number, also from text; None for what is none."""
    try:
        found = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 < found < 2**63 else None


def job(old: Document, xml: bytes | None, parents: Sequence[ObjectId], times: Times, doubt: Doubt) -> Document:
    """Return a job; one whose XML cannot be read is archived, with what there was of it as the script."""
    about = f"job {old['_id']}"
    title = _title(old.get("title"), about, doubt)
    kind, site = str(old.get("type") or "Other"), str(old.get("execution_site") or "local")
    definition = _definition(xml)
    if definition is None:
        doubt("a job whose XML cannot be read: archived", f"{about} ({title})")
    body = serialise_jobs([replace(definition or _unreadable(xml), name=title, type=kind, site=site)]).decode()
    release = str(old.get("release") or "")
    new = NewJob(title, kind, site, body, release, dependencies=tuple(parents))
    return {
        "_id": old["_id"], "_cls": "Job", "slug": str(old.get("slug") or old["_id"]), "created_at":
        times.aware(old.get("created_at"), about) or old["_id"].generation_time,
        "allotted": 0, "creations": [], "owner": "", "tags": [], "archived": definition is None, **new.key,
        "body": body, "digest": new.digest, "release": release, "priority": 0, "dependencies": list(parents),
    }  # fmt: skip


def _title(value: object, about: str, doubt: Doubt) -> str:
    """Return a title that can be the name of a folder."""
    letters = ("_" if letter == "/" or ord(letter) < 32 else printable(letter) for letter in str(value or ""))
    title = "".join(letters).encode()[:LONGEST_TITLE].decode(errors="ignore")
    title = str(about) if title in ("", ".", "..") else title
    if title != value:
        doubt("a title that cannot be the name of a folder: changed", f"{about}: {title}")
    return title


def _definition(xml: bytes | None) -> JobDefinition | None:
    try:
        return parse_jobs(xml or b"")[0][0]
    except InvalidJobDefinition:
        return None


def _unreadable(xml: bytes | None) -> JobDefinition:
    text = (xml or b"").decode(errors="replace")
    return JobDefinition(executable="/bin/false", script="\n".join(map(printable, text.splitlines())))


def instance(old: Document, owner: Document, times: Times, doubt: Doubt) -> Document:
    """Return an instance of the job ``owner``; its number is a positive one.

    What ran goes on as its first attempt, so that the reports of its payload are still good.
    """
    about = f"instance {old.get('instanceId')} of {owner['title']} ({old['_id']})"
    status, minor = _status(old, about, doubt), str(old.get("minor_status") or AWAITING)
    ran = status is not MajorStatus.NEW
    body, readable = _overrides(old.get("body"))
    if not readable:
        doubt("overrides that cannot be read: left out, and what is New becomes Failed", about)
    if not ran and (owner["archived"] or not readable):
        status, minor = MajorStatus.FAILED, ARCHIVED_JOB if readable else UNREADABLE_OVERRIDES
    if old.get("site") not in (None, "", owner["execution_site"]):
        doubt("another site than its job's: that of the job is kept", f"{about}: {old['site']}")
    created = times.aware(old.get("created_at"), about) or old["_id"].generation_time
    updated = times.aware(old.get("last_update"), about) or created
    waiting = owner["dependencies"] if status is MajorStatus.NEW else []
    new: Document = {
        "_id": old["_id"], "_cls": "JobInstance", "job": owner["_id"], "instanceId": number(old["instanceId"]),
        "site": owner["execution_site"], "priority": owner["priority"], "created_at": created,
        "last_update": updated, "taken_over": updated, "body": body, "status": str(status), "minor_status": minor,
        "attempt": int(ran), "handed_out": ran, "active": status in ACTIVE,
        "claimable": status is MajorStatus.NEW and not waiting,
    }  # fmt: skip
    if waiting:
        new["waiting_for"] = waiting
    if status in ACTIVE:  # of an old client, which tells of changes only: the reaper gives it the more time
        new |= {"quiet": True, "last_contact": updated}
    return new | _history(old, times, about) | _details(old, times, about)


def _status(old: Document, about: str, doubt: Doubt) -> MajorStatus:
    try:
        return MajorStatus(old.get("status") or "New")
    except ValueError:
        doubt("a status that is not known: taken as Unknown", f"{about}: {str(old['status'])[:40]}")
        return MajorStatus.UNKNOWN


@lru_cache(maxsize=1000)
def _overrides_of(text: str) -> tuple[str, bool]:
    try:
        return from_mapping(dictionary(text, "body")).to_json(), True
    except InvalidInput:
        return "", False


def _overrides(value: object) -> tuple[str, bool]:
    """Return the overrides as they are stored, and whether they could be read."""
    if value is not None and not isinstance(value, str):
        return "", False
    return _overrides_of(value or "")


def _history(old: Document, times: Times, about: str) -> Document:
    entries = []
    for entry in _mappings(old.get("status_history"))[-HISTORY_LIMIT:]:
        time = times.aware(entry.get("update"), about)
        if time:
            told = {"status": str(entry.get("status")), "minor_status": str(entry.get("minor_status") or "")}
            entries.append(told | {"update": time})
    begun = next((entry["update"] for entry in entries if entry["status"] == MajorStatus.RUNNING), None)
    return {"status_history": entries} | ({"started_at": begun} if begun else {})


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _details(old: Document, times: Times, about: str) -> Document:
    """Return what there is of batch id, host, events, limits, samples and log."""
    found: Document = {"batchId": normalise_batch_id(old.get("batchId")), "hostname": old.get("hostname") or None}
    found["Nevents"] = number(old.get("Nevents"))
    found |= {name: _float(old.get(name)) or None for name in ("cpu_max", "mem_max")}
    for name in ("cpu", "memory"):
        samples = _samples(old.get(name), times, about)
        kept: list[Document] = []
        for sample in samples:
            kept = append_thinned(kept, sample)
        found |= {name: kept or None, f"{name}_peak": max((sample["value"] for sample in samples), default=None)}
    if log := str(old.get("log") or ""):
        found |= {"log": log[-LOG_LIMIT:], "last_line": last_line(log)}
    return {name: value for name, value in found.items() if value is not None}


def _samples(value: object, times: Times, about: str) -> list[Document]:
    read = [(_float(item.get("value")), item.get("time")) for item in _mappings(value)]
    known = [(amount, times.aware(time, about)) for amount, time in read if amount is not None]
    return [{"time": time, "value": amount} for amount, time in known if time]


def _float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def file(old: Document, times: Times, doubt: Doubt, statuses: Sequence[str]) -> Document:
    """Return an entry of the data catalogue."""
    about, status = f"file {str(old['filename'])[:200]}", str(old.get("status") or "New")
    if status not in statuses:
        doubt("a file's status that is not known: taken as Orphaned", f"{about}: {status[:40]}")
        status = "Orphaned"
    return {
        "_id": old["_id"], "_cls": "DataFile", "filename": str(old["filename"]), "site": str(old["site"]),
        "status": status, "filetype": str(old.get("filetype") or "root"),
        "created_at": times.aware(old.get("created_at"), about) or old["_id"].generation_time,
    }  # fmt: skip
