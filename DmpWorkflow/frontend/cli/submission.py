"""Commands that make jobs and instances."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from DmpWorkflow.client import Given
from DmpWorkflow.frontend.cli.assignments import overrides
from DmpWorkflow.frontend.cli.common import Context, command, complain
from DmpWorkflow.utils.errors import InvalidInput

SET_VAR = click.option(
    "--set-var",
    multiple=True,
    metavar='"a=1;b=2"',
    help="Variables of these instances; may be repeated, values quoted.",
)


@command("create", epilog="Example: dampe-cli-new-job examples/helloWorld.xml -n hello --Ninstances 10")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-i", "--input", "xml", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The job's XML."
)
@click.option("-n", "--name", default="", help="Name of the job; default: the one in the XML.")
@click.option("-t", "--type", "job_type", default="", help="Type of the job; default: the one in the XML.")
@click.option("-s", "--site", default="", help="Site to run at; default: the one in the XML.")
@click.option("-d", "--depends", multiple=True, metavar="PARENTS", help="Slugs of parents, with commas or repeated.")
@click.option("--Ninstances", "instances", type=click.IntRange(0), default=0, help="Instances to create at once.")
@SET_VAR
@click.option("--replace", is_flag=True, help="Replace another definition of this job, if no instance is active.")
@click.option("--priority", type=int, help="The higher, the earlier; default: the one in the XML, or 0.")
@click.option(
    "--check", is_flag=True, help="Make nothing: print what is wrong, or what the first instance would see."
)
def create(
    context: Context,
    file: Path | None,
    xml: Path | None,
    set_var: tuple[str, ...],
    depends: tuple[str, ...],
    check: bool,
    **options: Any,
) -> None:
    """Create the jobs in an XML file, or add instances to a job that is there already."""
    path = file or xml
    if path is None or (file and xml):
        raise InvalidInput("name one XML file, as argument or with --input")
    parents = [parent.strip() for value in depends for parent in value.split(",") if parent.strip()]
    given = Given(
        title=options["name"],
        job_type=options["job_type"],
        site=options["site"],
        instances=options["instances"],
        overrides=overrides(set_var),
        parents=parents,
        replace=options["replace"],
        priority=options["priority"],
    )
    if check:
        return _check(context, path, given)
    reply = context.client().create_job(path.read_bytes(), **given)
    _warn(path, reply["warnings"])
    for job in reply["jobs"]:
        context.say(f"Added job {job['title']} ({job['slug']}) at {job['site']}{numbers_made(job)}")
    context.give(reply["jobs"])
    return None


def _warn(path: Path, warnings: Sequence[str]) -> None:
    for warning in warnings:
        complain("warning", f"{path}: {warning}")


def _check(context: Context, path: Path, given: Given) -> None:
    """Print every problem in a line, or what would be made; ends with exit code 2 if there are problems."""
    checked = context.client().check_job(path.read_bytes(), **given)
    context.give(checked)
    _warn(path, checked["warnings"])
    for problem in checked["problems"]:
        place = f"line {problem['line']}: " if problem["line"] is not None else ""
        complain("error", f"{path}: {place}{problem['text']}")
    if not checked["valid"]:
        sys.exit(InvalidInput.exit_code)
    for job in checked["jobs"]:
        _preview(context, job)


def _preview(context: Context, job: Mapping[str, Any]) -> None:
    context.say(f"{job['title']} ({job['type']}) at {job['site']}, priority {job['priority']}")
    for parent in job["parents"]:
        context.say(f"  after {parent['title']} ({parent['slug']})")
    context.say(f"  instances: {job['instances']}; instance {job['first']} would run {job['executable']} with")
    for word, files in (("input", job["input_files"]), ("output", job["output_files"])):
        for file in files:
            context.say(f"  {word}: {file['source']} -> {file['target']}")
    for variable in (*job["variables"], *job["automatic"]):
        context.say(f"  {variable['name']}={variable['value']}")


def numbers_made(reply: Mapping[str, Any]) -> str:
    """Return the end of a sentence: which instances were made, if any."""
    return f", instances {reply['first']} to {reply['last']}" if reply["first"] else ""


@command("add", epilog="Example: dampe-cli-create-new-jobInstance -n hello -t User -i 5 --set-var 'SEED=7'")
@click.option("-n", "--name", required=True, help="Name of the job.")
@click.option("-t", "--type", "job_type", default="", help="Type of the job.")
@click.option("-s", "--site", default="", help="Site of the job, if several have one of that name.")
@click.option(
    "-i", "--inst", "--number", "number", type=click.IntRange(1), default=1, help="How many instances to add."
)
@click.option("--first", type=click.IntRange(1), help="Number that the first one must get.")
@SET_VAR
def add(
    context: Context, name: str, job_type: str, site: str, number: int, first: int | None, set_var: tuple[str, ...]
) -> None:
    """Add instances to a job."""
    reply = context.client().add_instances(
        name, job_type, number, site=site, first=first, overrides=overrides(set_var)
    )
    context.say(f"Added instances {reply['first']} to {reply['last']}")
    context.give({"first": reply["first"], "last": reply["last"], "jobID": reply["jobID"]})
