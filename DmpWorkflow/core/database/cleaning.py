"""Removal of what should not be there: duplicates, and what is left of jobs that are gone."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from DmpWorkflow.core.database import counts
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus
from DmpWorkflow.utils.parts import in_parts
from DmpWorkflow.utils.text import numbered

PART = 1000
INSTANCE_KEY = ("job", "instanceId")
FILE_KEY = ("site", "filename")


def remove_duplicates(database: Database, dry_run: bool) -> str:
    """Remove instances and files that are there twice, which only a database without its indexes has."""
    instances = _remove_instances(database, dry_run)
    files = 0
    for group in duplicates(database.files, FILE_KEY):
        found = list(database.files.find({"_id": {"$in": group}}, sort=[("last_update", -1), ("_id", -1)]))
        others = [file["_id"] for file in found[1:]]
        files += len(others) if dry_run else database.files.delete_many({"_id": {"$in": others}}).deleted_count
    return f"{numbered(instances, 'instance')} and {numbered(files, 'file')} {_were(dry_run)}"


def duplicates(collection: "Collection[Document]", key: tuple[str, ...]) -> Iterator[list[Any]]:
    """Yield the ids of documents that share what should be unique; costs nothing where an index sees to that."""
    if has_unique_index(collection, key):
        return
    same = {"$group": {"_id": {name: f"${name}" for name in key}, "ids": {"$push": "$_id"}, "number": {"$sum": 1}}}
    for group in collection.aggregate([same, {"$match": {"number": {"$gt": 1}}}], allowDiskUse=True):
        yield group["ids"]


def has_unique_index(collection: "Collection[Document]", key: tuple[str, ...]) -> bool:
    """Say whether the database itself keeps this key unique."""
    indexes = collection.index_information().values()
    return any(index.get("unique") and tuple(name for name, _ in index["key"]) == key for index in indexes)


def _remove_instances(database: Database, dry_run: bool) -> int:
    removed = 0
    for group in duplicates(database.instances, INSTANCE_KEY):
        if dry_run:
            removed += len(group) - 1
        else:
            removed += database.transaction(partial(_keep_one, database, group))
    return removed


def _keep_one(database: Database, ids: list[ObjectId], session: ClientSession) -> int:
    found = list(database.instances.find({"_id": {"$in": ids}}, session=session))
    found.sort(key=_how_far, reverse=True)
    for other in found[1:]:
        database.instances.delete_one({"_id": other["_id"]}, session=session)
        counts.change(database, other["job"], {MajorStatus(other["status"]): -1}, session)
    return max(len(found) - 1, 0)


def _how_far(instance: Document) -> tuple[Any, ...]:
    status = instance["status"]
    rank = 3 if status == MajorStatus.DONE else 2 if status in ACTIVE else 1 if status != MajorStatus.NEW else 0
    return rank, instance["attempt"], instance["last_update"], instance["_id"]


def remove_orphans(database: Database, dry_run: bool) -> str:
    """Remove instances, counters and statistics whose job is gone."""
    instances = 0
    for job in orphaned_jobs(database, database.instances):
        if dry_run:
            instances += database.instances.count_documents({"job": job})
        while not dry_run and (found := list(database.instances.find({"job": job}, {"_id": 1}, limit=PART))):
            ids = [one["_id"] for one in found]
            instances += database.instances.delete_many({"_id": {"$in": ids}}).deleted_count
    slots = _remove_of(database.counts, "job", orphaned_jobs(database, database.counts), dry_run)
    ids = [found["_id"] for found in database.distributions.find({}, {"_id": 1})]
    statistics = _remove_of(database.distributions, "_id", _gone(database, ids), dry_run)
    return (
        f"{numbered(instances, 'instance')}, {numbered(slots, 'counter')} and statistics of "
        f"{numbered(statistics, 'job')} {_were(dry_run)}"
    )


def orphaned_jobs(database: Database, collection: "Collection[Document]") -> list[ObjectId]:
    """Return the jobs that documents of the collection are of, and that there are not."""
    # Read before the jobs are: a job is there before anything of it is.
    return _gone(database, [group["_id"] for group in collection.aggregate([{"$group": {"_id": "$job"}}])])


def _gone(database: Database, ids: list[ObjectId]) -> list[ObjectId]:
    gone: list[ObjectId] = []
    for part in in_parts(ids, PART):
        known = {job["_id"] for job in database.jobs.find({"_id": {"$in": part}}, {"_id": 1})}
        gone += [job for job in part if job not in known]
    return gone


def _remove_of(collection: "Collection[Document]", field: str, jobs: list[ObjectId], dry_run: bool) -> int:
    query = {field: {"$in": jobs}}
    return collection.count_documents(query) if dry_run else collection.delete_many(query).deleted_count


def remove_orphaned_files(database: Database, dry_run: bool) -> str:
    """Remove entries of the data catalogue that somebody marked as Orphaned."""
    query = {"status": "Orphaned"}
    number = database.files.count_documents(query) if dry_run else database.files.delete_many(query).deleted_count
    return f"{number} {'entry' if number == 1 else 'entries'} {_were(dry_run)}"


def _were(dry_run: bool) -> str:
    return "would be removed" if dry_run else "removed"
