"""How the database is: its version, the members of its replica set, how much it holds, who is connected."""

from pymongo.errors import OperationFailure

from DmpWorkflow.core.database.connection import Database, Document

UNAUTHORIZED = 13  # MongoDB's code
WORKING = ("PRIMARY", "SECONDARY", "ARBITER")  # states of a member that does its part


def of_database(database: Database) -> Document:
    """Return the facts; those that the database does not tell this user of it are None, and ``members`` empty."""
    stats = database.jobs.database.command("dbStats")
    replicas = _asked(database, "replSetGetStatus") or {"members": []}
    server = _asked(database, "serverStatus")
    return {
        "version": database.client.server_info()["version"],
        "name": database.jobs.database.name,
        "replica_set": database.client.admin.command("hello")["setName"],
        "members": [_member(member) for member in replicas["members"]],
        "connections": server["connections"]["current"] if server else None,
        "documents": int(stats["objects"]),
        "data_bytes": int(stats["dataSize"]),
        "index_bytes": int(stats["indexSize"]),
        "storage_bytes": int(stats["storageSize"]),
    }


def _member(member: Document) -> Document:
    healthy = bool(member["health"]) and member["stateStr"] in WORKING
    return {"name": member["name"], "state": member["stateStr"], "healthy": healthy}


def _asked(database: Database, command: str) -> Document | None:
    """Return the answer, or None where the database's user lacks the role clusterMonitor."""
    try:
        return database.client.admin.command(command)
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return None
