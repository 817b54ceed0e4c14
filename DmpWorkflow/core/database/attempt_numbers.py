"""Numbers of attempts: each claim of an instance gets the next one, and no number ever means two attempts.

A restored database has forgotten the attempts that were handed out after its backup. So a restore raises the floor,
above which all numbers are that are handed out from then on.
"""

from DmpWorkflow.core.database.connection import Database

FLOOR_ID = "attempt-floor"


def floor(database: Database) -> int:
    """Return the number that the next attempt of every instance exceeds."""
    stored = database.settings.find_one({"_id": FLOOR_ID}) or {"value": 0}
    return int(stored["value"])


def following(database: Database, attempt: int) -> int:
    """Return the number of the attempt that follows ``attempt``."""
    return max(attempt, floor(database)) + 1


def raise_floor(database: Database, number: int) -> None:
    """Let all attempts that are handed out from now on have numbers above ``number``."""
    database.settings.update_one({"_id": FLOOR_ID}, {"$max": {"value": number}}, upsert=True)
