"""Sites: what each does, its agents, and its hosts, those first that fail most."""

from flask import render_template

from DmpWorkflow.core.database import heartbeats
from DmpWorkflow.frontend.access import Right, database, requires
from DmpWorkflow.frontend.api import schemas, statistics
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.refresh import shares_refreshes
from DmpWorkflow.frontend.parameters import parse
from DmpWorkflow.utils.errors import NotFound


@blueprint.get("/sites/")
@requires(Right.READ)
@shares_refreshes
def site_list() -> str:
    """Show all sites, those in trouble first."""
    return render_template("sites.html", health=statistics.healths(database(), statistics.visible_sites()))


@blueprint.get("/sites/<name>")
@requires(Right.READ)
@shares_refreshes
def site(name: str) -> str:
    """Show one site."""
    given = parse(schemas.Span)
    sites = statistics.visible_sites(name)
    (health,) = statistics.healths(database(), sites)
    agents = heartbeats.agents(database(), sites)
    if not agents and not sum(health.counts.values()) and name not in statistics.configured_sites():
        raise NotFound(f"there is no site {name}: [JobDB] batch_sites of the server does not name it")
    return render_template(
        "site.html",
        given=given,
        name=name,
        health=health,
        counts={str(status): number for status, number in health.counts.items()},
        agents=[statistics.agent_row(agent) for agent in agents],
        complaints=heartbeats.complaints(database(), name),
        hosts=statistics.site_hosts(database(), name),
        failures=statistics.frequent_failures(database(), sites),
    )
