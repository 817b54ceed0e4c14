"""The version of what is stored, kept in the database itself, and marks of work that it is unusable during."""

from typing import TYPE_CHECKING, Any

from DmpWorkflow.utils.errors import ConfigurationError

if TYPE_CHECKING:  # it checks the schema when it opens
    from DmpWorkflow.core.database.connection import Database

VERSION = 3
BEFORE_VERSIONS = 1  # of a database that was filled before versions were kept
VERSION_ID = "schema"
RESTORING_ID = "restoring"


def version(database: "Database") -> int:
    """Return the version of the stored schema; an empty database has the present one.

    Raises ConfigurationError for a database of the original.
    """
    stored = database.settings.find_one({"_id": VERSION_ID})
    if stored:
        return int(stored["value"])
    found = database.jobs.find_one({}, {"digest": 1})
    if found and "digest" not in found:
        raise ConfigurationError(
            "the database holds data of the original: name another one in [database], and take them over with "
            "dampe-server import-legacy"
        )
    return BEFORE_VERSIONS if found else VERSION


def note_version(database: "Database") -> None:
    """Note the present version in a database that has none yet."""
    database.settings.update_one({"_id": VERSION_ID}, {"$setOnInsert": {"value": VERSION}}, upsert=True)


def set_version(database: "Database", number: int) -> None:
    """Note the version of what is stored."""
    database.settings.update_one({"_id": VERSION_ID}, {"$set": {"value": number}}, upsert=True)


def check(database: "Database") -> None:
    """Raise ConfigurationError unless this program can work on the database."""
    check_whole(database)
    stored = check_known(database)
    if stored < VERSION:
        raise ConfigurationError(
            f"the database has schema {stored}, and this program needs {VERSION}: back it up, then run "
            "dampe-server migrate"
        )


def check_known(database: "Database") -> int:
    """Return the ``version``; raises ConfigurationError if it is newer than this program."""
    stored = version(database)
    if stored > VERSION:
        raise ConfigurationError(
            f"the database has schema {stored}, and this program knows {VERSION}: upgrade the program"
        )
    return stored


def check_whole(database: "Database") -> None:
    """Raise ConfigurationError if a restore of the database began and did not end."""
    begun: dict[str, Any] | None = database.settings.find_one({"_id": RESTORING_ID})
    if begun:
        raise ConfigurationError(
            f"the database is half restored from {begun['value']['file']}: run dampe-server restore again"
        )
