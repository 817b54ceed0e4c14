"""Credentials: named tokens with a role, stored hashed, and signed tokens that are good for one attempt."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from bson import ObjectId
from itsdangerous import BadSignature, Signer
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core import names
from DmpWorkflow.core.database import audit, clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.roles import split_role
from DmpWorkflow.utils.errors import AccessDenied, Conflict, InvalidInput, NotFound

TOKEN_BYTES = 32
ATTEMPT_PREFIX = "att."
SIGNING_KEY_ID = "attempt-signing-key"
SESSION_KEY_ID = "session-signing-key"
NOTE_USE_EVERY = timedelta(minutes=1)
LONGEST_DAYS = 36_500  # that a token may be good for


@dataclass(frozen=True)
class Principal:
    """Who asks. ``job``, ``instance`` and ``attempt`` are set for the role "attempt", ``site`` for "site"."""

    role: str
    name: str
    site: str | None = None
    job: str | None = None
    instance: int | None = None
    attempt: int | None = None


class TokenExpired(AccessDenied):
    """This token has expired: ask an administrator for another one."""

    http_status = 401


def create(
    database: Database, name: str, role: str, site: str | None = None, expires: datetime | None = None
) -> tuple[str, Document]:
    """Make a token and return its text, which nobody can see again, and what is stored of it.

    Raises Conflict if a token or a user has the name, InvalidInput for a name, role or site that does not fit.
    """
    check_account("token", name, role, site)
    text = secrets.token_urlsafe(TOKEN_BYTES)
    document: Document = {
        "_id": ObjectId(),
        "name": name,
        "role": role,
        "site": site,
        "digest": _digest(text),
        "created_at": clock.now(),
        "last_used": None,
        "expires": expires,
    }
    try:
        database.credentials.insert_one(document)
    except DuplicateKeyError as error:
        raise Conflict(f"there is a token named {name!r}: revoke it first, or choose another name") from error
    # Afterwards: of a user and a token that are made at once, one at least sees the other.
    if database.users.find_one({"name": name}, {"_id": 1}):
        database.credentials.delete_one({"_id": document["_id"]})
        raise Conflict(f"there is a user named {name!r}, whose jobs are not a token's: choose another name")
    audit.note(database, "token.create", f"token/{name}", after={"role": role, "site": site})
    return text, document


def check_account(kind: str, name: str, role: str, site: str | None) -> None:
    """Raise InvalidInput for a name, role or site that does not fit; ``kind`` is "token" or "user"."""
    names.check_account(f"a {kind}", name)
    split_role(role, site)


def expiry(text: str) -> datetime | None:
    """Return when a token expires: after a number of days, or with the end of a day (2027-01-31, UTC).

    An empty text means never. Raises InvalidInput for anything else, and for a day that is over.
    """
    if not text:
        return None
    if text.isascii() and text.isdecimal() and 0 < int(text) <= LONGEST_DAYS:
        return clock.now() + timedelta(days=int(text))
    try:
        end = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"expires {text[:40]!r}: expected days from 1 to {LONGEST_DAYS}, or a date as in 2027-01-31"
        ) from None
    if end <= clock.now():
        raise InvalidInput(f"expires {text!r}: that day is over")
    return end


def find(database: Database, text: str, secret: bytes) -> Principal | None:
    """Return whose token this is, or None; ``secret`` is what attempt tokens are signed with.

    Raises TokenExpired.
    """
    if text.startswith(ATTEMPT_PREFIX):
        return _attempt(text, secret)
    return _used(database, by_text(database, text))


def by_text(database: Database, text: str) -> Document | None:
    """Return what is stored of a token, or None; it may have expired."""
    return database.credentials.find_one({"digest": _digest(text)})


def by_id(database: Database, token: ObjectId) -> Principal | None:
    """Return whose token this is, or None; raises TokenExpired."""
    return _used(database, database.credentials.find_one({"_id": token}))


def check_expiry(token: Document) -> None:
    """Raise TokenExpired if it has."""
    expires = token.get("expires")
    if expires is not None and expires <= clock.now():
        raise TokenExpired(
            f"the token {token['name']} expired on {expires:%Y-%m-%d %H:%M} UTC: ask an administrator for another one"
        )


def _used(database: Database, found: Document | None) -> Principal | None:
    if found is None:
        return None
    check_expiry(found)
    now = clock.now()
    if found["last_used"] is None or now - found["last_used"] > NOTE_USE_EVERY:
        database.credentials.update_one({"_id": found["_id"]}, {"$set": {"last_used": now}})
    return Principal(role=found["role"], name=found["name"], site=found["site"])


def all_tokens(database: Database) -> list[Document]:
    """Return what is stored of every token, less its digest, by name."""
    return list(database.credentials.find({}, {"digest": 0}, sort=[("name", 1)]))


def revoke(database: Database, name: str) -> None:
    """Remove a token; raises NotFound."""
    found = database.credentials.find_one_and_delete({"name": name})
    if found is None:
        raise NotFound(f"there is no token named {name!r}")
    audit.note(database, "token.revoke", f"token/{name}", {"role": found["role"], "site": found["site"]})


def secret(database: Database) -> bytes:
    """Return the secret that signs attempt tokens; the first call of all makes it."""
    return _secret(database, SIGNING_KEY_ID)


def session_secret(database: Database) -> bytes:
    """Return the secret that signs the cookies of sessions; the first call of all makes it."""
    return _secret(database, SESSION_KEY_ID)


def _secret(database: Database, name: str) -> bytes:
    made = {"$setOnInsert": {"value": secrets.token_hex(TOKEN_BYTES)}}
    database.settings.update_one({"_id": name}, made, upsert=True)
    stored = database.settings.find_one({"_id": name}) or {}
    value: str = stored["value"]
    return value.encode()


def attempt_token(secret: bytes, job: str, instance: int, attempt: int) -> str:
    """Return the token for the reports of one attempt."""
    return ATTEMPT_PREFIX + _signer(secret).sign(f"{job}.{instance}.{attempt}").decode()


def _attempt(text: str, secret: bytes) -> Principal | None:
    try:
        signed = _signer(secret).unsign(text.removeprefix(ATTEMPT_PREFIX)).decode()
    except BadSignature:
        return None
    job, instance, attempt = signed.split(".")
    name = f"attempt {attempt} of {job}/{instance}"
    return Principal(role="attempt", name=name, job=job, instance=int(instance), attempt=int(attempt))


def _signer(secret: bytes) -> Signer:
    return Signer(secret, salt="attempt", digest_method=hashlib.sha256)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
