"""The types and sites that jobs may use, and those that they do use."""

from collections import Counter
from collections.abc import Sequence

from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.submission import Words

BY_TYPE_AND_SITE = [("type", 1), ("execution_site", 1)]  # an index that holds all that is asked for
GROUP = {"$group": {"_id": {"type": "$type", "site": "$execution_site"}, "jobs": {"$sum": 1}}}


def in_use(database: Database, known: Words) -> Document:
    """Return ``types`` and ``sites``: each word, whether it is configured, and how many jobs use it."""
    types: Counter[str] = Counter()
    sites: Counter[str] = Counter()
    for found in database.jobs.aggregate([GROUP], hint=dict(BY_TYPE_AND_SITE)):
        types[found["_id"]["type"]] += found["jobs"]
        sites[found["_id"]["site"]] += found["jobs"]
    return {"types": _rows(known.types, types), "sites": _rows(known.sites, sites)}


def _rows(known: Sequence[str], used: Counter[str]) -> list[Document]:
    words = [*known, *sorted(set(used) - set(known))]
    return [{"word": word, "configured": word in known, "jobs": used[word]} for word in words]
