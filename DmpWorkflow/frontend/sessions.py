"""Sessions of people in a browser: a signed cookie that names a login, which is looked up with every request."""

import hashlib
import hmac

from bson import ObjectId
from flask import session

from DmpWorkflow.core.database import credentials, logins, users
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal

LOGIN = "login"


def begin_for_user(database: Database, user: Document) -> None:
    """Log a user in; another password later ends the session."""
    _begin(database, "user", user["_id"], _stamp(user))


def begin_for_token(database: Database, token: Document) -> None:
    """Log in whoever has this token; its end is the session's end."""
    _begin(database, "token", token["_id"], "")


def end(database: Database) -> None:
    """Log out; a copy of the cookie is worth nothing from now on."""
    logins.end(database, session.get(LOGIN, ""))
    session.clear()


def principal(database: Database) -> Principal | None:
    """Return who is logged in in this browser, or None."""
    login = logins.find(database, session[LOGIN]) if LOGIN in session else None
    if login is None:
        return None
    if login["kind"] == "token":
        return credentials.by_id(database, login["account"])
    user = users.by_id(database, login["account"])
    is_same = user is not None and hmac.compare_digest(login["stamp"], _stamp(user))
    return users.principal_of(user) if user and is_same else None


def _begin(database: Database, kind: str, account: ObjectId, stamp: str) -> None:
    session.clear()
    session.permanent = True
    session[LOGIN] = logins.begin(database, kind, account, stamp)


def _stamp(user: Document) -> str:
    return hashlib.sha256(user["password"].encode()).hexdigest()[:16]
