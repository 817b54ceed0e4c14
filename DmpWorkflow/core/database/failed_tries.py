"""How often something failed within a fixed time, counted over all processes; forgotten when that time is over."""

from datetime import datetime, timedelta
from typing import NamedTuple

from pymongo import ReturnDocument

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document


class Tries(NamedTuple):
    """How many failed, and when counting begins anew."""

    number: int
    until: datetime


def note(database: Database, key: str, window: timedelta) -> Tries:
    """Count one more failure; the first one begins a ``window``."""
    now = clock.now()
    over: Document = {"$lte": [{"$ifNull": ["$until", now]}, now]}
    # A pipeline, since MongoDB itself removes what is over only once a minute.
    counted = {
        "number": {"$cond": [over, 1, {"$add": ["$number", 1]}]},
        "until": {"$cond": [over, now + window, "$until"]},
    }
    found = database.failed_tries.find_one_and_update(
        {"_id": key}, [{"$set": counted}], upsert=True, return_document=ReturnDocument.AFTER
    )
    assert found is not None  # noqa: S101 - for the type checker: it was inserted if it was not there
    return Tries(found["number"], found["until"])


def of(database: Database, key: str) -> Tries:
    """Return what was counted so far."""
    now = clock.now()
    found = database.failed_tries.find_one({"_id": key, "until": {"$gt": now}})
    return Tries(found["number"], found["until"]) if found else Tries(0, now)
