"""The collections with their indexes, and transactions over them."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from DmpWorkflow.core.database import schema
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.utils.errors import ConfigurationError, DmpWorkflowError, Unavailable

Document = dict[str, Any]
Result = TypeVar("Result")

# Who asks is told soon that there is no primary, and asks again. A member that hangs is given up after two of these
# times: what waits for its answer is broken off then, and repeated (as retryable writes and reads) with the next one.
CLIENT_OPTIONS: dict[str, Any] = {
    "tz_aware": True,
    "serverSelectionTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "heartbeatFrequencyMS": 5000,
}
PAUSE = 1.0  # seconds between two tries to reach a primary

log = logging.getLogger(__name__)


class Database:
    """One DmpWorkflow database: typed handles for its collections; writes wait for a majority."""

    def __init__(self, uri: str, name: str, client: "MongoClient[Document] | None" = None) -> None:
        self.client: MongoClient[Document] = client or MongoClient(uri, **CLIENT_OPTIONS)
        self._database = database = self.client.get_database(
            name, write_concern=WriteConcern("majority"), read_concern=ReadConcern("majority")
        )
        self.jobs = database.get_collection("job")
        self.instances = database.get_collection("job_instance")
        self.counts = database.get_collection("instance_count")
        self.claims = database.get_collection("claim")
        self.creation_requests = database.get_collection("creation_request")
        self.credentials = database.get_collection("credential")
        self.users = database.get_collection("user")
        self.logins = database.get_collection("login")
        self.settings = database.get_collection("setting")
        self.heartbeats = database.get_collection("heart_beat")
        self.agents = database.get_collection("agent")
        # Statistics: who reports need not wait for a majority, nor who looks.
        people = self.client.get_database(name, write_concern=WriteConcern(1), read_concern=ReadConcern("local"))
        self.beats = people.get_collection("agent_history")
        self.activity = people.get_collection("activity")
        self.failures = people.get_collection("failure")
        self.hosts = people.get_collection("host_activity")
        self.streaks = people.get_collection("host_streak")
        self.distributions = people.get_collection("distribution")
        self.snapshots = people.get_collection("snapshot")
        self.maintenance = database.get_collection("maintenance")
        self.files = database.get_collection("data_file")
        self.failed_tries = database.get_collection("failed_tries")
        self.audit = database.get_collection("audit")  # only audit.py writes it, and nobody changes it

    @property
    def name(self) -> str:
        return self._database.name

    def collection(self, name: str) -> "Collection[Document]":
        """Return a collection by its name, for what works on all of them."""
        return self._database.get_collection(name)

    def prepare(self, patience: float = 0.0) -> None:
        """Make the indexes; raises ConfigurationError for a server without transactions, or an unfit schema.

        Tries again for ``patience`` seconds while there is no primary, and raises Unavailable then.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._prepare()
            except AutoReconnect as error:  # also where the primary changes meanwhile
                if time.monotonic() >= deadline:
                    raise Unavailable("the database does not answer: check [database] and its replica set") from error
                log.warning("the database does not answer: trying again")
                time.sleep(PAUSE)

    def _prepare(self) -> None:
        if "setName" not in self.client.admin.command("hello"):
            raise ConfigurationError(
                "this MongoDB is not a replica set, which transactions need: start mongod with --replSet and run "
                "rs.initiate() once (one member is enough)"
            )
        schema.check(self)
        self.make_indexes()
        schema.note_version(self)

    def make_indexes(self) -> None:
        """Make the indexes, whatever the schema."""
        for document in DOCUMENTS:
            collection = self._database.get_collection(document._meta["collection"])
            for spec in document._meta["index_specs"]:
                options = {name: value for name, value in spec.items() if name not in ("fields", "cls")}
                collection.create_index(spec["fields"], **options)

    def transaction(self, work: Callable[[ClientSession], Result]) -> Result:
        """Run ``work`` in a transaction, again as long as it only conflicts with others.

        A commit without an answer is repeated as well. Raises Unavailable at once where there is no primary.
        """

        def with_primary(session: ClientSession) -> Result:
            try:
                return work(session)
            except ServerSelectionTimeoutError as error:  # which the driver would try again for two minutes
                raise Unavailable("the database has no primary now: try again") from error

        with self.client.start_session() as session:
            return session.with_transaction(
                with_primary, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )

    def confirmed(self, read: Callable[[ClientSession], Result]) -> Result:
        """Return what ``read`` finds, once a majority has it: for what is refused for good.

        A new primary answers other reads with what the majority had some moments ago, older than what the one before
        it had confirmed already; and an old one may not know yet that it is none. What ``read`` raises is confirmed
        as well, since only a commit asks the majority.
        """

        def outcome(session: ClientSession) -> Result | DmpWorkflowError:
            try:
                return read(session)
            except DmpWorkflowError as error:
                return error

        found = self.transaction(outcome)
        if isinstance(found, DmpWorkflowError):
            raise found
        return found

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
