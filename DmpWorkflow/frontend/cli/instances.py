"""Commands that end instances, run them again and change them by hand."""

import sys

import click

from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.frontend.cli.assignments import overrides
from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.frontend.cli.matching import given, matching
from DmpWorkflow.frontend.cli.submission import SET_VAR
from DmpWorkflow.utils.errors import InvalidInput, NotFound


@command("kill", epilog="Example: dampe-cli-jobs kill hello-x7k2 --n_min 100 --n_max 200 --yes")
@click.argument("slug")
@click.option(
    "--instance", "instances", type=click.IntRange(1), multiple=True, help="Only this instance; repeatable."
)
@click.option("--status", default="Any", show_default=True, help="Only instances in this status.")
@matching
@click.option("--yes", is_flag=True, help="Do not ask.")
def kill(context: Context, slug: str, instances: tuple[int, ...], yes: bool, **bounds: str | int | None) -> None:
    """End instances of a job: what waits at once, what a batch system has with its agent's next cycle."""
    client = context.client()
    job = client.job(slug)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"this would end instances of {job['title']}: add --yes to do so without a question")
        click.confirm(f"End {'these' if instances else 'all such'} instances of {job['title']}?", abort=True)
    done = client.kill(slug, instances=list(instances) or None, **given(bounds))
    context.say(f"Ended {done['ended']} waiting instances; {done['ordered']} end with the next cycle of their agents")
    context.give({"ended": done["ended"], "ordered": done["ordered"]})


@command("rollback", epilog="Example: dampe-cli-jobs rollback hello-x7k2 --host wn12 --yes")
@click.argument("slug")
@click.option(
    "--instance", "instances", type=click.IntRange(1), multiple=True, help="Only this instance; repeatable."
)
@click.option("--status", default="Failed", show_default=True, help="Only instances in this status; Any: all.")
@matching
@SET_VAR
@click.option("--yes", is_flag=True, help="Do not ask.")
def roll_back_matching(
    context: Context,
    slug: str,
    instances: tuple[int, ...],
    set_var: tuple[str, ...],
    yes: bool,
    **chosen: str | int | None,
) -> None:
    """Roll instances of a job back to New, so that they run again; the history of earlier attempts is kept."""
    client = context.client()
    title = client.job(slug)["title"]
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"this would roll instances of {title} back: add --yes to do so without a question")
        click.confirm(f"Roll {'these' if instances else 'all such'} instances of {title} back?", abort=True)
    new = overrides(set_var) if set_var else None
    changed = client.roll_back(slug, instances=list(instances) or None, overrides=new, **given(chosen))
    context.say(f"Rolled back {changed} instances")
    context.give({"rolled_back": changed})


@command("rollback", epilog="Example: dampe-cli-rollback-jobInstance --title hello --type User --status Failed --yes")
@click.option("--title", required=True, help="Name of the job.")
@click.option("--type", "job_type", default="Generation", show_default=True, help="Type of the job.")
@click.option("--instance", "inst", type=click.IntRange(0), help="Only this instance.")
@click.option("--status", default="Failed", show_default=True, help="Only instances in this status; Any: all.")
@click.option("--n_min", type=click.IntRange(0), help="Only numbers above this.")
@click.option("--n_max", type=click.IntRange(0), help="Only numbers up to this.")
@SET_VAR
@click.option("--yes", is_flag=True, help="Do not ask.")
def roll_back(
    context: Context,
    title: str,
    job_type: str,
    status: str,
    set_var: tuple[str, ...],
    yes: bool,
    **bounds: int | None,
) -> None:
    """Roll instances back to New, so that they run again; the history of earlier attempts is kept."""
    client = context.client()
    found = client.find_instances(title, job_type, status, **bounds)
    if not found:
        raise NotFound(f"no instances of {title} ({job_type}) match: check --title, --type and --status")
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"this would roll {len(found)} instances back: add --yes to do so without a question")
        click.confirm(f"Roll {len(found)} instances of {title} back?", abort=True)
    changed = 0
    for job in sorted({item["jobId"] for item in found}):
        numbers = [item["instanceId"] for item in found if item["jobId"] == job]
        changed += client.roll_back(job, instances=numbers, overrides=overrides(set_var) if set_var else None)
    context.say(f"Rolled back {changed} instances")
    context.give({"rolled_back": changed})


@command(
    "update",
    epilog="Example: dampe-cli-update-job-status 6b04cc916a00b242cb9c95ef 3 Terminated --minor_status Broken",
)
@click.argument("job_id")
@click.argument("instance", type=click.IntRange(0))
@click.argument("status", type=click.Choice([str(status) for status in MajorStatus]))
@click.option("--minor_status", help="Minor status.")
@click.option("--hostname", help="Host on which it runs.")
@click.option("--batchId", "batch_id", help="Its id in the batch system.")
def update(
    context: Context, job_id: str, instance: int, status: str, batch_id: str | None, **words: str | None
) -> None:
    """Set the status of an instance by hand (New: roll it back)."""
    arguments = {"t_id": job_id, "inst_id": instance, "major_status": status, "batchId": batch_id} | words
    context.client().report({name: value for name, value in arguments.items() if value is not None})
    context.say("Status updated")
    context.give({"result": "ok"})
