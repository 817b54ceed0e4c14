"""The list of jobs."""

from bson import ObjectId
from flask import current_app, render_template

from DmpWorkflow.core.database import job_search, progress
from DmpWorkflow.frontend.access import Right, database, own_site, requires
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.refresh import shares_refreshes
from DmpWorkflow.frontend.parameters import parse

JOBS_ON_A_PAGE = 50


@blueprint.get("/jobs/")
@requires(Right.READ)
@shares_refreshes
def job_list() -> str:
    """Show the jobs that match, the youngest first or in another order."""
    given = parse(schemas.JobQuery)
    chosen = given.chosen(own_site() or given.site)
    page = job_search.search(database(), chosen, given.sort, given.descending, JOBS_ON_A_PAGE, given.before)
    found = progress.of_jobs(database(), [ObjectId(row["id"]) for row in page.rows])
    words = current_app.config["DAMPE_SETTINGS"].jobdb
    return render_template(
        "jobs.html",
        given=given,
        jobs=page.rows,
        progress={str(job): how for job, how in found.items()},
        cursor=page.next,
        matching=page.matching,
        filtered=chosen != job_search.JobFilter(site=own_site()),
        sites=(own_site(),) if own_site() else words.batch_sites,
        types=words.task_types,
    )
