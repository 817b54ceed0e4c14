"""Updates that are alike become one statement, which does what they would have done one by one."""

from typing import Any

import pytest
from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from DmpWorkflow.core.database.alike import Guarded, statements
from DmpWorkflow.core.database.connection import Database

Document = dict[str, Any]
IDS = [ObjectId() for _ in range(6)]
BEFORE: Document = {
    "status": "New",
    "history": [{"entry": 1}, {"entry": 2}],
    "claim": {"agent": "a", "request": "r"},
    "waits": True,
    "batch": "of old",
}


def push(entry: Any, most: int = 3) -> Document:
    return {"history": {"$each": [entry], "$slice": -most}}


def updated(number: int, **changes: Any) -> Guarded:
    """Return the update of one document, as the others but for its batch and what is given."""
    update = {
        "$set": {"status": "$done", "batch": f"$7.{number}", "claim.agent": {"$gt": 1}},
        "$unset": {"waits": "", "claim.request": ""},
        "$push": push({"entry": "$3"}),
    }
    return {"_id": IDS[number], "status": "New"}, update | changes


def written(database: Database, writes: list[UpdateOne | UpdateMany]) -> tuple[int, list[Document]]:
    """Return how many documents matched, and all of them as they are afterwards."""
    database.collection("alike").delete_many({})
    documents = [{"_id": one, **BEFORE} for one in IDS[:-1]]
    database.collection("alike").insert_many([*documents, {"_id": IDS[-1], "status": "New"}])
    matched = database.collection("alike").bulk_write(writes, ordered=False).matched_count
    return matched, list(database.collection("alike").find(sort=[("_id", 1)]))


def test_all_that_are_alike_are_one_statement(database: Database) -> None:
    updates = [updated(number) for number in range(6)]
    joined = statements(updates, own="batch")
    assert len(joined) == 1
    alone = written(database, [UpdateOne(*one) for one in updates])
    assert written(database, joined) == alone
    assert alone[0] == 6 and alone[1][4]["batch"] == "$7.4" and alone[1][5]["history"] == [{"entry": "$3"}]


@pytest.mark.parametrize(
    "other",
    [
        updated(2, **{"$set": {"status": "Failed", "batch": "7"}}),
        updated(2, **{"$set": {"status": "$done", "claim.agent": {"$gt": 1}}}),
        updated(2, **{"$push": push({"entry": "$4"})}),
        updated(2, **{"$push": push({"entry": "$3"}, 1)}),
        updated(2, **{"$push": {"history": {"entry": "$3"}}}),
        updated(2, **{"$unset": {"waits": ""}}),
        updated(2, **{"$max": {"peak": 3}}),
        ({"_id": IDS[2], "status": "Running"}, updated(2)[1]),
    ],
    ids=["value", "no batch", "entry", "bound", "unbounded", "field", "operator", "guard"],
)
def test_what_differs_has_a_statement_of_its_own(database: Database, other: Guarded) -> None:
    updates = [updated(0), updated(1), other, updated(3)]
    joined = statements(updates, own="batch")
    assert len(joined) == 2
    assert written(database, joined) == written(database, [UpdateOne(*one) for one in updates])


def test_updates_without_the_field_are_joined_as_well(database: Database) -> None:
    updates = [({"_id": one}, {"$set": {"status": "Done"}}) for one in IDS]
    joined = statements(updates, own="batch")
    assert len(joined) == 1
    assert written(database, joined) == written(database, [UpdateOne(*one) for one in updates])


def test_what_is_no_longer_in_its_state_is_left_alone(database: Database) -> None:
    updates = [updated(number) for number in range(6)]
    joined = statements(updates, own="batch")
    database.collection("alike").drop()
    database.collection("alike").insert_many(
        [{"_id": one, "status": "New" if one != IDS[3] else "Done"} for one in IDS]
    )
    assert database.collection("alike").bulk_write(joined).matched_count == 5
    assert database.collection("alike").find_one({"_id": IDS[3]}) == {"_id": IDS[3], "status": "Done"}


def test_a_bulk_of_alike_reports_is_two_statements_whatever_their_number() -> None:
    """Such as a cycle that submitted two arrays, one of them again after a retry."""
    updates = [
        ({"_id": ObjectId(), "attempt": n % 2}, {"$set": {"batch": str(n), "status": "S"}}) for n in range(1000)
    ]
    assert len(statements(updates, own="batch")) == 2
