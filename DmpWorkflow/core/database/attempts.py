"""What an attempt's own token is good for: nothing once the attempt is over, or another one is current."""

from bson import ObjectId
from pymongo.client_session import ClientSession

from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.credentials import Principal
from DmpWorkflow.core.lifecycle import FINAL
from DmpWorkflow.core.reports import StaleAttempt
from DmpWorkflow.utils.errors import NotFound

FIELDS = {"site": 1, "status": 1, "attempt": 1, "handed_out": 1, "lost": 1}


def site_of_current(database: Database, who: Principal) -> str:
    """Return the site at which the attempt of this token is under way.

    Raises NotFound if its job was removed, and StaleAttempt if it is over or another one is current. One that
    was only thought lost is not over: it may still succeed.
    """
    try:
        return _site_of_current(database, who, None)
    except (NotFound, StaleAttempt):  # which ends a payload
        return database.confirmed(lambda session: _site_of_current(database, who, session))


def _site_of_current(database: Database, who: Principal, session: ClientSession | None) -> str:
    named = {"job": ObjectId(who.job), "instanceId": who.instance}
    found = database.instances.find_one(named, FIELDS, session=session)
    if found is None:
        raise NotFound(f"there is no instance {who.instance} of job {who.job}")
    current = found["handed_out"] and found["attempt"] == who.attempt
    if not current or (found["status"] in FINAL and not found.get("lost")):
        raise StaleAttempt(f"attempt {who.attempt} of instance {who.instance} is over: stop")
    site: str = found["site"]
    return site
