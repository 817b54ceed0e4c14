"""How many instances of each site were in which status, four times an hour: what charts over time are made of."""

from datetime import datetime, timedelta

from DmpWorkflow.core.database import clock, counts
from DmpWorkflow.core.database.connection import Database, Document

INTERVAL = timedelta(minutes=15)


class Clockwork:
    """Knows when this process has to look again, so that most calls cost nothing."""

    def __init__(self) -> None:
        self.done: datetime | None = None


def take_when_due(database: Database, clockwork: Clockwork) -> None:
    """Keep the counts of this quarter of an hour, unless that is done."""
    time = quarter(clock.now())
    if clockwork.done == time:
        return
    taken = [found["_id"] for found in database.snapshots.find({"_id": {"$gte": time.replace(minute=0)}}, {"_id": 1})]
    if time not in taken:
        by_site = counts.of_all_sites(database)
        sites = [
            {"site": site, "counts": {str(status): n for status, n in found.items()}}
            for site, found in by_site.items()
        ]
        kept = {"$setOnInsert": {"time": time, "hourly": not taken, "sites": sites}}
        database.snapshots.update_one({"_id": time}, kept, upsert=True)
    clockwork.done = time


def quarter(time: datetime) -> datetime:
    """Return the begin of the quarter of an hour."""
    return time.replace(minute=time.minute - time.minute % 15, second=0, microsecond=0)


def since(database: Database, begin: datetime, sites: set[str], hourly: bool) -> list[Document]:
    """Return time and counts, summed over the sites, the oldest first; ``hourly`` leaves three of four out."""
    query: Document = {"_id": {"$gte": begin}} | ({"hourly": True} if hourly else {})
    found = database.snapshots.find(query, sort=[("_id", 1)])
    return [{"time": taken["_id"], "counts": _sum(taken["sites"], sites)} for taken in found]


def _sum(parts: list[Document], sites: set[str]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        if part["site"] in sites:
            for status, number in part["counts"].items():
                total[status] = total.get(status, 0) + number
    return total
