"""Credentials: named tokens with a role, stored hashed, and signed tokens that are good for one attempt."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from bson import ObjectId
from itsdangerous import BadSignature, Signer
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.names import check_account
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

ROLES = ("admin", "submit", "read", "site")
TOKEN_BYTES = 32
ATTEMPT_PREFIX = "att."
SIGNING_KEY_ID = "attempt-signing-key"
SESSION_KEY_ID = "session-signing-key"
NOTE_USE_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Principal:
    """Who asks. ``job``, ``instance`` and ``attempt`` are set for the role "attempt", ``site`` for "site"."""

    role: str
    name: str
    site: str | None = None
    job: str | None = None
    instance: int | None = None
    attempt: int | None = None


def create(database: Database, name: str, role: str, site: str | None = None) -> tuple[str, Document]:
    """Make a token and return its text, which nobody can see again, and what is stored of it.

    Raises Conflict if the name is taken, InvalidInput for a name, role or site that does not fit.
    """
    check_account("a token", name)
    if role not in ROLES:
        raise InvalidInput(f"role {role!r}: expected one of {', '.join(ROLES)}")
    if (role == "site") != bool(site):
        raise InvalidInput("a site's token, and no other, names its site")
    text = secrets.token_urlsafe(TOKEN_BYTES)
    document: Document = {
        "_id": ObjectId(),
        "name": name,
        "role": role,
        "site": site,
        "digest": _digest(text),
        "created_at": clock.now(),
        "last_used": None,
    }
    try:
        database.credentials.insert_one(document)
    except DuplicateKeyError as error:
        raise Conflict(f"there is a token named {name!r}: revoke it first, or choose another name") from error
    return text, document


def find(database: Database, text: str, secret: bytes) -> Principal | None:
    """Return whose token this is, or None; ``secret`` is what attempt tokens are signed with."""
    if text.startswith(ATTEMPT_PREFIX):
        return _attempt(text, secret)
    return _used(database, by_text(database, text))


def by_text(database: Database, text: str) -> Document | None:
    """Return what is stored of a token, or None."""
    return database.credentials.find_one({"digest": _digest(text)})


def by_id(database: Database, token: ObjectId) -> Principal | None:
    """Return whose token this is, or None."""
    return _used(database, database.credentials.find_one({"_id": token}))


def _used(database: Database, found: Document | None) -> Principal | None:
    if found is None:
        return None
    now = clock.now()
    if found["last_used"] is None or now - found["last_used"] > NOTE_USE_EVERY:
        database.credentials.update_one({"_id": found["_id"]}, {"$set": {"last_used": now}})
    return Principal(role=found["role"], name=found["name"], site=found["site"])


def all_tokens(database: Database) -> list[Document]:
    """Return what is stored of every token, less its digest, by name."""
    return list(database.credentials.find({}, {"digest": 0}, sort=[("name", 1)]))


def revoke(database: Database, name: str) -> None:
    """Remove a token; raises NotFound."""
    if not database.credentials.delete_one({"name": name}).deleted_count:
        raise NotFound(f"there is no token named {name!r}")


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
