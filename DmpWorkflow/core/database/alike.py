"""Guarded updates of many documents that are alike, in few statements: a statement costs more than a document."""

from collections import defaultdict
from collections.abc import Sequence

import bson
from pymongo import UpdateMany, UpdateOne

from DmpWorkflow.core.database.connection import Document

Guarded = tuple[Document, Document]  # a filter with the _id, and the update of that document


def statements(updates: Sequence[Guarded], own: str) -> list[UpdateOne | UpdateMany]:
    """Return statements for a bulk write that do what these updates do, one by one, in any order.

    Those that differ in nothing but ``_id`` and what they ``$set`` the field ``own`` to become one statement, if they
    only ``$set`` and ``$unset`` and ``$push`` to bounded lists (``$each``, and a negative ``$slice``).
    """
    groups: defaultdict[bytes, list[Guarded]] = defaultdict(list)
    for guard, update in updates:
        same = {**update, "$set": {name: value for name, value in update["$set"].items() if name != own}}
        key = [guard | {"_id": None}, same, own in update["$set"]] if _is_plain(update) else [guard]
        groups[bson.encode({"alike": key})].append((guard, update))
    return [UpdateOne(*group[0]) if len(group) == 1 else _joined(group, own) for group in groups.values()]


def _is_plain(update: Document) -> bool:
    pushed = update.get("$push", {}).values()
    return update.keys() <= {"$set", "$unset", "$push"} and all(_is_bounded(push) for push in pushed)


def _is_bounded(push: Document) -> bool:
    return push.keys() == {"$each", "$slice"} and push["$slice"] < 0


def _joined(group: Sequence[Guarded], own: str) -> UpdateMany:
    """Return the updates as one, in the form of a pipeline, which alone can look at the ``_id``."""
    guard, update = group[0]
    ids = [one["_id"] for one, _ in group]
    fields: Document = {name: {"$literal": value} for name, value in update["$set"].items()}
    if own in fields:
        values = {"$literal": [one["$set"][own] for _, one in group]}
        fields[own] = {"$arrayElemAt": [values, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    for name, push in update.get("$push", {}).items():
        longer = {"$concatArrays": [{"$ifNull": [f"${name}", []]}, {"$literal": push["$each"]}]}
        fields[name] = {"$slice": [longer, push["$slice"]]}
    removed = [{"$unset": list(names)}] if (names := update.get("$unset")) else []
    return UpdateMany(guard | {"_id": {"$in": ids}}, [{"$set": fields}, *removed])
