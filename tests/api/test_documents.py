"""What the hot paths store is what the documents declare; and their queries are covered by indexes."""

from datetime import timedelta
from typing import Any

from bson import ObjectId
from pymongo.read_concern import ReadConcern

from DmpWorkflow.core.database import (
    claims,
    clock,
    creation,
    credentials,
    data_catalogue,
    failed_tries,
    heartbeats,
    jobs,
    logins,
    maintenance,
    snapshots,
    users,
)
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.creation_requests import CreationRequest
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report


def fill(database: Database) -> ObjectId:
    job: ObjectId = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))["_id"]
    child = jobs.submit(database, jobs.NewJob("child", "User", "local", "<Jobs/>", dependencies=(job,)))["_id"]
    creation.create_instances(database, job, 30, request=CreationRequest("submit anna", "key", "digest"))
    creation.create_instances(database, child, 5)
    claims.claim(database, claims.ClaimRequest("local", "agent", "request1", 10, timedelta(hours=1)))
    values = {
        "batchId": "1",
        "hostname": "wn",
        "cpu": 1,
        "memory": 2,
        "cpu_max": 3,
        "mem_max": 4,
        "log": "x",
        "Nevents": 5,
    }
    for number, status in ((1, MajorStatus.DONE), (2, MajorStatus.RUNNING), (3, MajorStatus.FAILED)):
        apply_report(
            database, StatusReport(job, number, Report(status, 1, 1, "runner"), values | {"minor_status": "m"})
        )
    roll_back(database, job, [3])
    credentials.create(database, "site", "site", "local")
    credentials.secret(database)
    user = users.create(database, "anna", "a long password", "submit")
    logins.begin(database, "user", user["_id"], "stamp")
    heartbeats.beat(database, "wn", "JobFetcher", "3")
    beat = {"agent": "agent", "hostname": "wn", "version": "3"}
    heartbeats.agent_beat(database, beat, "local", [heartbeats.Held(job, 1, [2])])
    data_catalogue.register(database, "local", ["/a"], "root")
    kill(database, job, [2])
    snapshots.take_when_due(database, snapshots.Clockwork())
    maintenance.run(database, "compare-counts", "anna")
    failed_tries.note(database, "login:x", timedelta(minutes=5))
    return job


def test_all_that_is_stored_loads_and_validates_as_documents(database: Database) -> None:
    fill(database)
    for document in DOCUMENTS:
        collection = database.jobs.database[document._meta["collection"]]
        stored = list(collection.with_options(read_concern=ReadConcern("local")).find())
        assert stored, document
        for found in stored:
            document._from_son(found).validate()  # refuses fields that are not declared


def plan(database: Database, collection: Any, query: dict[str, Any], **options: Any) -> tuple[str, int, int]:
    """Return the index a query uses, and how many keys and documents it looks at."""
    found = collection.find(query, **options).explain()
    stage = found["queryPlanner"]["winningPlan"]
    while "inputStage" in stage:
        stage = stage["inputStage"]
    stats = found["executionStats"]
    return stage.get("indexName", stage["stage"]), stats["totalKeysExamined"], stats["totalDocsExamined"]


def test_hot_queries_use_their_index_and_look_at_no_more_than_they_return(database: Database) -> None:
    job = fill(database)
    instances = database.instances
    claim = plan(
        database,
        instances,
        {"site": "local", "claimable": True},
        projection={"attempt": 1},
        sort=claims.ORDER,
        limit=5,
    )
    assert claim == ("claim_order", 5, 5)
    assert plan(database, instances, claims._over()) == ("waits", 0, 0)
    assert plan(database, instances, jobs.busy(job))[2] <= 2 * 8  # of one that runs and seven that are claimed
    one = {"job": job, "instanceId": {"$in": [7, 8]}}
    assert plan(database, instances, one)[2] == 2
    by_number = [("instanceId", 1)]
    page = plan(database, instances, {"job": job, "instanceId": {"$gt": 10}}, sort=by_number, limit=5)
    assert page == ("job_1_instanceId_1", 5, 5)
    filtered = {"job": job, "status": "New", "instanceId": {"$gt": 0}}
    assert plan(database, instances, filtered, sort=by_number, limit=5) == ("job_1_status_1_instanceId_1", 5, 5)
    watched = {"site": "local", "active": True, "status": "Running"}
    assert plan(database, instances, watched) == ("under_way", 1, 1)
    assert plan(database, database.counts, {"job": {"$in": [job]}})[0] == "job_1"
    assert plan(database, database.jobs, {"slug": "x"})[0] == "slug_1"
    assert plan(database, database.jobs, {"dependencies": job})[0] == "dependencies_1"
    youngest_first = [("created_at", -1), ("_id", -1)]
    listed = plan(database, database.jobs, {"archived": {"$ne": True}}, sort=youngest_first, limit=1)
    assert listed == ("created_at_-1__id_-1", 1, 1)
    made_later = {"$and": [{"archived": {"$ne": True}}, {"created_at": {"$gt": clock.now()}}]}
    assert plan(database, database.jobs, made_later, sort=youngest_first, limit=5) == ("created_at_-1__id_-1", 0, 0)
    assert plan(database, database.credentials, {"digest": "x"})[0] == "digest_1"
