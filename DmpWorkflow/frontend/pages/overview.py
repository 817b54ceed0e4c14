"""The first page: how much is done, which site is sick, what fails."""

from collections import Counter

from flask import current_app, render_template

from DmpWorkflow.core.database import job_search, snapshots
from DmpWorkflow.core.database.job_search import JobFilter
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.frontend.access import Right, database, own_site, requires
from DmpWorkflow.frontend.api import schemas, statistics
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.refresh import shares_refreshes
from DmpWorkflow.frontend.parameters import parse

RECENT_JOBS = 8


@blueprint.get("/")
@requires(Right.READ)
@shares_refreshes
def overview() -> str:
    """Show the state of everything."""
    snapshots.take_when_due(database(), current_app.extensions["dampe_clockwork"])
    given = parse(schemas.Span)
    sites = statistics.visible_sites(given.site)
    health = statistics.healths(database(), sites)
    total: Counter[MajorStatus] = Counter()
    for one in health:
        total.update(one.counts)
    recent = job_search.search(database(), JobFilter(site=given.site or own_site()), limit=RECENT_JOBS).rows
    return render_template(
        "overview.html",
        given=given,
        health=health,
        counts={str(status): total[status] for status in MajorStatus},
        day=_last_day(sites),
        failures=statistics.frequent_failures(database(), sites),
        jobs=recent,
    )


def _last_day(sites: tuple[str, ...]) -> dict[str, float]:
    """Return how much ended within a day, per hour, and which fraction of it badly."""
    ended = statistics.ended_in_a_day(database(), sites)
    total = sum(ended[str(status)] for status in FINAL)
    bad = total - ended[str(MajorStatus.DONE)]
    return {"ended": total, "per_hour": total / 24, "failing": bad / total if total else 0.0}
