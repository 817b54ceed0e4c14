"""The collections with their indexes, and transactions over them."""

from collections.abc import Callable
from typing import Any, TypeVar

from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from DmpWorkflow.utils.errors import ConfigurationError

Document = dict[str, Any]
Result = TypeVar("Result")

JOB_INDEXES = [
    IndexModel([("title", ASCENDING), ("type", ASCENDING), ("execution_site", ASCENDING)], unique=True),
    IndexModel("slug", unique=True),
    IndexModel([("created_at", DESCENDING), ("_id", DESCENDING)]),
    IndexModel("dependencies"),
]
INSTANCE_INDEXES = [
    IndexModel([("job", ASCENDING), ("instanceId", ASCENDING)], unique=True),
    IndexModel([("job", ASCENDING), ("status", ASCENDING), ("instanceId", ASCENDING)]),
    # Partial: only what can be claimed is in it, so that a claim costs the same whatever else is stored.
    IndexModel(
        [("site", ASCENDING), ("priority", DESCENDING), ("_id", ASCENDING)],
        name="claimable",
        partialFilterExpression={"claimable": True},
    ),
    IndexModel(
        [("site", ASCENDING), ("last_update", ASCENDING)], name="active", partialFilterExpression={"active": True}
    ),
    IndexModel("claim.expires", name="leases", sparse=True),
    IndexModel("claim.request", name="claims", sparse=True),
]
COUNT_INDEXES = [IndexModel("job"), IndexModel("site")]
CREDENTIAL_INDEXES = [IndexModel("digest", unique=True), IndexModel("name", unique=True)]
HEARTBEAT_INDEXES = [
    IndexModel([("hostname", ASCENDING), ("process", ASCENDING)], unique=True),
    IndexModel("timestamp", expireAfterSeconds=30 * 24 * 3600),
]
AGENT_INDEXES = [IndexModel([("site", ASCENDING), ("agent", ASCENDING)], unique=True)]
FILE_INDEXES = [
    IndexModel([("site", ASCENDING), ("filename", ASCENDING)], unique=True),
    IndexModel([("site", ASCENDING), ("status", ASCENDING), ("filetype", ASCENDING), ("created_at", DESCENDING)]),
    IndexModel([("created_at", DESCENDING)]),
]
CLAIM_INDEXES = [IndexModel("forget_at", expireAfterSeconds=0)]


class Database:
    """One DmpWorkflow database: typed handles for its collections; writes wait for a majority."""

    def __init__(self, uri: str, name: str) -> None:
        self.client: MongoClient[Document] = MongoClient(uri, tz_aware=True, serverSelectionTimeoutMS=5000)
        database = self.client.get_database(
            name, write_concern=WriteConcern("majority"), read_concern=ReadConcern("majority")
        )
        self.jobs = database.get_collection("job")
        self.instances = database.get_collection("job_instance")
        self.counts = database.get_collection("instance_count")
        self.claims = database.get_collection("claim")
        self.credentials = database.get_collection("credential")
        self.settings = database.get_collection("setting")
        self.heartbeats = database.get_collection("heart_beat")
        self.agents = database.get_collection("agent")
        self.files = database.get_collection("data_file")

    def prepare(self) -> None:
        """Make the indexes; raises ConfigurationError for a server that has no transactions."""
        if "setName" not in self.client.admin.command("hello"):
            raise ConfigurationError(
                "this MongoDB is not a replica set, which transactions need: start mongod with --replSet and run "
                "rs.initiate() once (one member is enough)"
            )
        self.jobs.create_indexes(JOB_INDEXES)
        self.instances.create_indexes(INSTANCE_INDEXES)
        self.counts.create_indexes(COUNT_INDEXES)
        self.claims.create_indexes(CLAIM_INDEXES)
        self.credentials.create_indexes(CREDENTIAL_INDEXES)
        self.heartbeats.create_indexes(HEARTBEAT_INDEXES)
        self.agents.create_indexes(AGENT_INDEXES)
        self.files.create_indexes(FILE_INDEXES)

    def transaction(self, work: Callable[[ClientSession], Result]) -> Result:
        """Run ``work`` in a transaction, again as long as it only conflicts with others."""
        with self.client.start_session() as session:
            return session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
