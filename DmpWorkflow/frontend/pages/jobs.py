"""The list of jobs, a job with its instances, an instance."""

from flask import render_template

from DmpWorkflow.core.database import instance_search, job_search, jobs, listing
from DmpWorkflow.frontend.access import Right, database, own_site, requires, sees
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.pages.charts import curve
from DmpWorkflow.frontend.parameters import parse

JOBS_ON_A_PAGE = 50
INSTANCES_ON_A_PAGE = 100


@blueprint.get("/jobs/")
@requires(Right.READ)
def job_list() -> str:
    """Show jobs, the youngest first."""
    given = parse(schemas.JobQuery)
    site = own_site() or given.site
    page = job_search.search(
        database(), given.chosen(site), given.sort, given.descending, JOBS_ON_A_PAGE, given.before
    )
    return render_template("jobs.html", jobs=page.rows, cursor=page.next, given=given)


@blueprint.get("/jobs/<slug>")
@requires(Right.READ)
def job(slug: str) -> str:
    """Show a job with its instances."""
    given = parse(schemas.InstanceQuery)
    found = jobs.by_slug(database(), slug)
    sees(found)
    rows, after = instance_search.search(
        database(), found["_id"], given.chosen(), given.sort, given.descending, INSTANCES_ON_A_PAGE, given.after
    )
    shown = listing.job_summary(database(), found)
    return render_template("job.html", job=shown, instances=rows, after=after, given=given)


@blueprint.get("/jobs/<slug>/<int:number>")
@requires(Right.READ)
def instance(slug: str, number: int) -> str:
    """Show an instance with its history, resources and log."""
    found = jobs.by_slug(database(), slug)
    sees(found)
    shown = listing.instance_detail(database(), found["_id"], min(number, schemas.INT64))
    curves = [
        curve("CPU time", "s", shown["cpu"], shown["cpu_max"]),
        curve("Memory", "MB", shown["memory"], shown["mem_max"]),
    ]
    return render_template(
        "instance.html", job=found, instance=shown, curves=[drawn for drawn in curves if drawn is not None]
    )
