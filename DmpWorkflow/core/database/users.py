"""People who log in with a name and a password, which is kept as an argon2id hash."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import audit, clock, logins
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import Principal, check_account
from DmpWorkflow.utils.errors import AccessDenied, Conflict, InvalidInput, NotFound

SHORTEST_PASSWORD = 10  # characters


class UserDisabled(AccessDenied):
    """This user is disabled: ask an administrator."""


def create(database: Database, name: str, password: str, role: str, site: str | None = None) -> Document:
    """Make a user. Raises Conflict if a user or a token has the name, InvalidInput for what does not fit."""
    check_account("user", name, role, site)
    document: Document = {
        "_id": ObjectId(), "name": name, "role": role, "site": site, "password": _hash(password),
        "created_at": clock.now(), "last_used": None, "disabled": False,
    }  # fmt: skip
    try:
        database.users.insert_one(document)
    except DuplicateKeyError as error:
        raise Conflict(f"there is a user named {name!r}") from error
    # Afterwards, as for tokens: of two that are made at once, one at least sees the other.
    if database.credentials.find_one({"name": name}, {"_id": 1}):
        database.users.delete_one({"_id": document["_id"]})
        raise Conflict(f"there is a token named {name!r}, whose jobs are not a user's: choose another name")
    audit.note(database, "user.create", f"user/{name}", after={"role": role, "site": site})
    return document


def authenticate(database: Database, name: str, password: str) -> Document | None:
    """Return the user of that name and password, or None, after the same time in either case.

    Raises UserDisabled, to whom knows the password only.
    """
    found = database.users.find_one({"name": name})
    try:
        _hasher().verify(found["password"] if found else _nobodys(), password)
    except VerificationError:
        return None
    if found is not None and found.get("disabled"):
        raise UserDisabled
    if found is not None:
        database.users.update_one({"_id": found["_id"]}, {"$set": {"last_used": clock.now()}})
    return found


def set_password(database: Database, name: str, password: str) -> None:
    """Give a user another password, which ends all sessions; raises NotFound."""
    if not database.users.update_one({"name": name}, {"$set": {"password": _hash(password)}}).matched_count:
        raise NotFound(f"there is no user named {name!r}")
    audit.note(database, "user.password", f"user/{name}")


def set_disabled(database: Database, name: str, disabled: bool) -> None:
    """Keep a user out, which ends all sessions, or let the user in again; raises NotFound."""
    found = database.users.find_one_and_update({"name": name}, {"$set": {"disabled": disabled}}, {"_id": 1})
    if found is None:
        raise NotFound(f"there is no user named {name!r}")
    if disabled:
        logins.end_all(database, found["_id"])
    audit.note(database, "user.disable" if disabled else "user.enable", f"user/{name}")


def remove(database: Database, name: str) -> None:
    """Remove a user, and end all sessions; raises NotFound."""
    found = database.users.find_one_and_delete({"name": name})
    if found is None:
        raise NotFound(f"there is no user named {name!r}")
    logins.end_all(database, found["_id"])
    audit.note(database, "user.remove", f"user/{name}", {"role": found["role"], "site": found["site"]})


def all_users(database: Database) -> list[Document]:
    """Return what is stored of every user, less the password's hash, by name."""
    return list(database.users.find({}, {"password": 0}, sort=[("name", 1)]))


def by_id(database: Database, user: ObjectId) -> Document | None:
    """Return a user who may come in, or None."""
    return database.users.find_one({"_id": user, "disabled": {"$ne": True}})


def principal_of(user: Document) -> Principal:
    """Return who a user is to the server."""
    return Principal(role=user["role"], name=user["name"], site=user["site"])


def _hash(password: str) -> str:
    if len(password) < SHORTEST_PASSWORD:
        raise InvalidInput(f"a password needs at least {SHORTEST_PASSWORD} characters")
    return _hasher().hash(password)


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys() -> str:
    """Return the hash of a password that nobody knows, so that unknown names take as long as wrong passwords."""
    return _hasher().hash(str(ObjectId()))
