"""People who log in with a name and a password, which is kept as an argon2id hash."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.credentials import ROLES, Principal
from DmpWorkflow.core.names import check_account
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

SHORTEST_PASSWORD = 10  # characters


def create(database: Database, name: str, password: str, role: str, site: str | None = None) -> Document:
    """Make a user. Raises Conflict if the name is taken, InvalidInput for what does not fit."""
    check_account("a user", name)
    if role not in ROLES:
        raise InvalidInput(f"role {role!r}: expected one of {', '.join(ROLES)}")
    if (role == "site") != bool(site):
        raise InvalidInput("a user with the role site, and no other, names the site")
    document: Document = {
        "_id": ObjectId(), "name": name, "role": role, "site": site, "password": _hash(password),
        "created_at": clock.now(), "last_used": None,
    }  # fmt: skip
    try:
        database.users.insert_one(document)
    except DuplicateKeyError as error:
        raise Conflict(f"there is a user named {name!r}") from error
    return document


def authenticate(database: Database, name: str, password: str) -> Document | None:
    """Return the user of that name and password, or None, after the same time in either case."""
    found = database.users.find_one({"name": name})
    try:
        _hasher().verify(found["password"] if found else _nobodys(), password)
    except VerificationError:
        return None
    if found is not None:
        database.users.update_one({"_id": found["_id"]}, {"$set": {"last_used": clock.now()}})
    return found


def set_password(database: Database, name: str, password: str) -> None:
    """Give a user another password, which ends all sessions; raises NotFound."""
    if not database.users.update_one({"name": name}, {"$set": {"password": _hash(password)}}).matched_count:
        raise NotFound(f"there is no user named {name!r}")


def remove(database: Database, name: str) -> None:
    """Remove a user; raises NotFound."""
    if not database.users.delete_one({"name": name}).deleted_count:
        raise NotFound(f"there is no user named {name!r}")


def all_users(database: Database) -> list[Document]:
    """Return what is stored of every user, less the password's hash, by name."""
    return list(database.users.find({}, {"password": 0}, sort=[("name", 1)]))


def by_id(database: Database, user: ObjectId) -> Document | None:
    """Return a user, or None."""
    return database.users.find_one({"_id": user})


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
