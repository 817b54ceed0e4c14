"""Logins: a record for each, which all server processes see; without its record a cookie is worth nothing."""

import hashlib
import secrets
from datetime import timedelta

from bson import ObjectId

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document

LIFETIME = timedelta(hours=12)  # since the last request
NOTE_USE_EVERY = timedelta(minutes=5)  # so that a page which refreshes itself does not write each time
TEXT_BYTES = 32


def begin(database: Database, kind: str, account: ObjectId, stamp: str) -> str:
    """Note a login of an account ("user" or "token") and return the text that the cookie holds.

    ``stamp`` is what has to be the same later, for the login to go on.
    """
    text = secrets.token_urlsafe(TEXT_BYTES)
    login = {"_id": _digest(text), "kind": kind, "account": account, "stamp": stamp}
    database.logins.insert_one(login | {"expires": clock.now() + LIFETIME})
    return text


def find(database: Database, text: str) -> Document | None:
    """Return the login of this text, whose end moves on with its use, or None if it is over."""
    now = clock.now()
    found = database.logins.find_one({"_id": _digest(text), "expires": {"$gt": now}})
    if found is not None and found["expires"] < now + LIFETIME - NOTE_USE_EVERY:
        database.logins.update_one({"_id": found["_id"]}, {"$set": {"expires": now + LIFETIME}})
    return found


def end(database: Database, text: str) -> None:
    """End the login of this text, if there is one."""
    database.logins.delete_one({"_id": _digest(text)})


def end_all(database: Database, account: ObjectId) -> None:
    """End all logins of an account."""
    database.logins.delete_many({"account": account})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
