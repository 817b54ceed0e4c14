"""Migrations: from what earlier versions of the program stored to what this one reads.

Each is a function in an ordered list that can be killed anywhere and run again. One process at a time does them,
under a lease that it renews with each step.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import clock, schema
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.status_report import LINE_LIMIT
from DmpWorkflow.utils.errors import Conflict

LEASE_ID = "migrating"
LEASE = timedelta(minutes=2)
CHUNK = 5000  # instances of one update

Progress = Callable[[str], None]


def migrate(database: Database, progress: Progress = lambda _: None) -> list[int]:
    """Bring the schema up to the present version and return the versions that it went through, none if it was.

    Raises Conflict while another process does so, ConfigurationError for a newer schema.
    """
    schema.check_whole(database)
    schema.check_known(database)
    return bring_up(database, progress)


def bring_up(database: Database, progress: Progress = lambda _: None) -> list[int]:
    """Do the same also for a database that is just being restored."""
    reached = []
    holder = secrets.token_hex(8)
    while (version := schema.version(database)) < schema.VERSION:
        _hold(database, holder)
        progress(f"schema {version} becomes {version + 1}")

        def step(text: str) -> None:
            _hold(database, holder)
            progress(text)

        MIGRATIONS[version](database, step)
        schema.set_version(database, version + 1)
        reached.append(version + 1)
    if reached:
        database.settings.delete_one({"_id": LEASE_ID, "value.holder": holder})
    return reached


def _hold(database: Database, holder: str) -> None:
    """Take the lease, or renew it; raises Conflict while somebody else has it."""
    now = clock.now()
    mine = {"_id": LEASE_ID, "$or": [{"value.holder": holder}, {"value.expires": {"$lt": now}}]}
    value = {"holder": holder, "expires": now + LEASE}
    try:
        database.settings.update_one(mine, {"$set": {"value": value}}, upsert=True)
    except DuplicateKeyError as error:
        raise Conflict(
            "another process migrates this database: wait for it (if it was killed, for two minutes)"
        ) from error


def _add_owners_and_statistics(database: Database, step: Progress) -> None:
    """Jobs got owners, tags and an archive; instances their begin and the last line of their log as fields."""
    for name, value in (("owner", ""), ("tags", []), ("archived", False)):
        database.jobs.update_many({name: {"$exists": False}}, {"$set": {name: value}})
    _drop_index(database.instances, "claimable")  # another order
    _drop_index(database.instances, "active")  # changed with each report
    _drop_index(database.files, "created_at_-1")  # the beginning of others now
    step("jobs are done")
    _update_instances(database, [{"$set": _INSTANCE_FIELDS}], step)


def _join_leases_and_pauses(database: Database, step: Progress) -> None:
    """What waits for some time says until when in one field; fewer indexes, since each costs every report."""
    for name in ("under_way", "silence", "leases", "pauses", "claims"):
        _drop_index(database.instances, name)
    # The old names first: should an old server have worked on after an interruption, what they tell is newer.
    done_before: Document = {"$ifNull": ["$waits_until", "$$REMOVE"]}
    until: Document = {"$ifNull": ["$claim.expires", {"$ifNull": ["$not_before", done_before]}]}
    waits = {"waits_until": {"$cond": [{"$eq": ["$status", "New"]}, until, "$$REMOVE"]}}
    _update_instances(database, [{"$set": waits}, {"$unset": ["claim.expires", "not_before"]}], step)


def _update_instances(database: Database, update: Sequence[Document], step: Progress) -> None:
    done, last = 0, None
    while ids := _next_instances(database, last):
        database.instances.update_many({"_id": {"$in": ids}}, update)
        done, last = done + len(ids), ids[-1]
        step(f"{done} instances are done")


def _next_instances(database: Database, last: object) -> list[object]:
    after: Document = {} if last is None else {"_id": {"$gt": last}}
    found = database.instances.find(after, {"_id": 1}, sort=[("_id", 1)], limit=CHUNK)
    return [instance["_id"] for instance in found]


def _drop_index(collection: Collection[Document], name: str) -> None:
    if name in collection.index_information():
        collection.drop_index(name)


def _unless_known(field: str, value: Document) -> Document:
    return {"$ifNull": [f"${field}", {"$ifNull": [value, "$$REMOVE"]}]}


_BEGUN: Document = {
    "$filter": {"input": {"$ifNull": ["$status_history", []]}, "cond": {"$eq": ["$$this.status", "Running"]}}
}
_LINES: Document = {
    "$filter": {
        "input": {
            "$map": {
                "input": {"$split": [{"$ifNull": ["$log", ""]}, "\n"]},
                "in": {"$substrCP": [{"$trim": {"input": "$$this"}}, 0, LINE_LIMIT]},
            }
        },
        "cond": {"$ne": ["$$this", ""]},
    }
}
_INSTANCE_FIELDS: Document = {
    "started_at": _unless_known(
        "started_at", {"$arrayElemAt": [{"$map": {"input": _BEGUN, "in": "$$this.update"}}, 0]}
    ),
    "last_line": _unless_known("last_line", {"$arrayElemAt": [_LINES, -1]}),
    "last_contact": _unless_known("last_contact", {"$cond": [{"$eq": ["$active", True]}, "$last_update", None]}),
}

MIGRATIONS: Mapping[int, Callable[[Database, Progress], None]] = {
    1: _add_owners_and_statistics,
    2: _join_leases_and_pauses,
}
