"""Sessions of people in a browser: a signed cookie that names a user or a token, looked up with every request."""

import hashlib

from bson import ObjectId
from flask import session

from DmpWorkflow.core.database import credentials, users
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal


def begin_for_user(user: Document) -> None:
    """Log a user in; another password later ends the session."""
    _begin("user", user["_id"], _stamp(user))


def begin_for_token(token: Document) -> None:
    """Log in whoever has this token; revoking it ends the session."""
    _begin("token", token["_id"], "")


def end() -> None:
    """Log out."""
    session.clear()


def principal(database: Database) -> Principal | None:
    """Return who is logged in in this browser, or None."""
    if not ObjectId.is_valid(session.get("id", "")):
        return None
    known = ObjectId(session["id"])
    if session.get("kind") == "token":
        return credentials.by_id(database, known)
    user = users.by_id(database, known)
    return users.principal_of(user) if user and session.get("stamp") == _stamp(user) else None


def _begin(kind: str, known: ObjectId, stamp: str) -> None:
    session.clear()
    session.permanent = True
    session.update(kind=kind, id=str(known), stamp=stamp)


def _stamp(user: Document) -> str:
    return hashlib.sha256(user["password"].encode()).hexdigest()[:16]
