"""Commands of people who run jobs."""

import os.path
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from DmpWorkflow.client import Client, Given
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.frontend.cli.assignments import overrides
from DmpWorkflow.frontend.cli.common import Context, Function, command
from DmpWorkflow.utils.errors import InvalidInput, NotFound
from DmpWorkflow.utils.exports import csv_lines
from DmpWorkflow.utils.files import whole_file
from DmpWorkflow.utils.text import printable

SET_VAR = click.option(
    "--set-var",
    multiple=True,
    metavar='"a=1;b=2"',
    help="Variables of these instances; may be repeated, values quoted.",
)
SORTS = ("created", "title", "site", "type", "progress", "failed", "total")
SHORT = {
    "New": "new", "Submitted": "sub", "Running": "run", "Suspended": "susp", "Done": "done", "Failed": "fail",
    "Terminated": "term", "Unknown": "unkn",
}  # fmt: skip


INSTANCE_SORTS = ("number", "last_update", "host", "attempt", "cpu_peak", "memory_peak")
MATCHING = (
    click.option("--minor_status", default="", help="Only instances with this minor status."),
    click.option("--host", default="", help="Only instances on this host."),
    click.option("--n_min", type=click.IntRange(0), help="Only numbers above this."),
    click.option("--n_max", type=click.IntRange(0), help="Only numbers up to this."),
    click.option("--text", default="", help="Only instances with this in their log."),
)


def matching(function: Function) -> Function:
    """Add the options that choose instances."""
    for option in reversed(MATCHING):
        function = option(function)
    return function


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
        context.say(f"Added job {job['title']} ({job['slug']}) at {job['site']}{_numbers(job)}")
    context.give(reply["jobs"])
    return None


def _warn(path: Path, warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {path}: {warning}", err=True)


def _check(context: Context, path: Path, given: Given) -> None:
    """Print every problem in a line, or what would be made; ends with exit code 2 if there are problems."""
    checked = context.client().check_job(path.read_bytes(), **given)
    context.give(checked)
    _warn(path, checked["warnings"])
    for problem in checked["problems"]:
        place = f"line {problem['line']}: " if problem["line"] is not None else ""
        click.echo(f"error: {path}: {place}{problem['text']}", err=True)
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


def _numbers(reply: Mapping[str, Any]) -> str:
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


@command("list", epilog="Example: dampe-cli-jobs list --site local --limit 20")
@click.option("--title", default="", help="Only jobs of this name.")
@click.option("--type", "job_type", default="", help="Only jobs of this type.")
@click.option("--site", default="", help="Only jobs of this site.")
@click.option("--text", default="", help="Only with this in title, slug, owner or a tag.")
@click.option("--status", default="", help="Only jobs with instances in this status.")
@click.option("--owner", default="", help="Only jobs that this one submitted.")
@click.option("--tag", default="", help="Only jobs with this tag.")
@click.option(
    "--archived", type=click.Choice(["no", "yes", "any"]), default="no", show_default=True, help="Archived ones."
)
@click.option(
    "--since", default="", metavar="TIME", help="Only jobs made then or later, as 2026-01-31 or with a time."
)
@click.option("--until", default="", metavar="TIME", help="Only jobs made before.")
@click.option("--sort", type=click.Choice(SORTS), default="created", show_default=True, help="What to sort by.")
@click.option("--descending/--ascending", default=True, show_default=True, help="In which order.")
@click.option("--limit", type=click.IntRange(1), default=50, help="At most so many.")
def list_jobs(context: Context, limit: int, **chosen: Any) -> None:
    """List jobs, the youngest first, with the number of instances in each status."""
    jobs = list(context.client().jobs(most=limit, **chosen))
    context.give(jobs)
    if context.as_json:
        return
    columns = ["slug", "title", "type", "site", *SHORT.values()]
    rows = [[job["slug"], job["title"], job["type"], job["site"], *(job["counts"][s] for s in SHORT)] for job in jobs]
    context.table(columns, rows)


@command("show", epilog="Example: dampe-cli-jobs show 4f2a91c07b1e 3")
@click.argument("job")
@click.argument("number", required=False, type=click.IntRange(1))
@click.option("--status", default="", help="Only instances in this status, or in these with commas.")
@matching
@click.option("--sort", type=click.Choice(INSTANCE_SORTS), default="number", show_default=True, help="Sort by.")
@click.option("--ascending/--descending", default=True, show_default=True, help="In which order.")
@click.option("--limit", type=click.IntRange(1), default=50, help="At most so many instances.")
def show(
    context: Context, job: str, number: int | None, limit: int, ascending: bool, **chosen: str | int | None
) -> None:
    """Show a job (by slug or name) and its instances, or one instance with its history and log."""
    client = context.client()
    found = _find(client, job)
    if number is not None:
        return _show_instance(context, client.instance(found["slug"], number))
    rows = list(client.instances(found["slug"], most=limit, descending=not ascending, **_given(chosen)))
    context.give(found | {"instances": rows})
    if context.as_json:
        return None
    context.say(f"{found['title']} ({found['type']}) at {found['site']}, priority {found['priority']}")
    context.say(_in_words(found["counts"]))
    columns = ["instance_id", "status", "minor_status", "attempt", "hostname", "batch_id", "last_update"]
    context.table(columns, [[row[column] if row[column] is not None else "" for column in columns] for row in rows])
    return None


def _given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if value not in (None, "")}


def _show_instance(context: Context, instance: Mapping[str, Any]) -> None:
    context.give(instance)
    if context.as_json:
        return
    for name in (
        "instance_id",
        "status",
        "minor_status",
        "attempt",
        "hostname",
        "batch_id",
        "cpu_peak",
        "memory_peak",
    ):
        context.say(f"{name}: {instance[name] if instance[name] is not None else '-'}")
    context.table(["time", "status", "minor_status"], [list(map(e.get, HISTORY)) for e in instance["status_history"]])
    if instance["log"]:
        context.say(instance["log"])


HISTORY = ("update", "status", "minor_status")


def _find(client: Client, word: str) -> dict[str, Any]:
    """Return the job with this slug, or else the only one of this name."""
    try:
        return client.job(word)
    except NotFound:
        named = list(client.jobs(title=word, archived="any", most=2))
    if not named:
        raise NotFound(f"there is no job with the slug or name {word}")
    if len(named) > 1:
        raise InvalidInput(
            f"several jobs are named {word}: give a slug, as dampe-cli-jobs list --title {word} shows them"
        )
    return client.job(named[0]["slug"])


def _in_words(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items() if count) or "no instances"


@command("watch", epilog="Example: dampe-cli-jobs watch hello")
@click.argument("job")
@click.option("--interval", type=click.FloatRange(0.2), default=2.0, help="Seconds between two looks.")
def watch(context: Context, job: str, interval: float) -> None:
    """Watch a job (by slug or name) until all its instances are over; fails if some did not succeed."""
    client = context.client()
    slug = _find(client, job)["slug"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=context.verbosity < 0) as progress:
        task = progress.add_task(job)
        while True:
            counts = client.job(slug)["counts"]
            over = sum(counts[status] for status in FINAL)
            total = sum(counts.values())
            progress.update(task, total=total, completed=over)
            if over == total:
                break
            time.sleep(interval)
    context.say(_in_words(counts))
    context.give(counts)
    if counts[MajorStatus.DONE] != total:
        sys.exit(1)


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
    done = client.kill(slug, instances=list(instances) or None, **_given(bounds))
    context.say(f"Ended {done['ended']} waiting instances; {done['ordered']} end with the next cycle of their agents")
    context.give({"ended": done["ended"], "ordered": done["ordered"]})


@command("priority", epilog="Example: dampe-cli-jobs priority hello-x7k2 10")
@click.argument("job")
@click.argument("priority", type=int)
def set_priority(context: Context, job: str, priority: int) -> None:
    """Set the priority of a job (by slug or name) and its instances: the higher, the earlier (negative: after --)."""
    client = context.client()
    changed = client.change_job(_find(client, job)["slug"], priority=priority)
    context.say(f"{changed['title']}: priority {changed['priority']}")
    context.give(changed)


@command("tag", epilog="Example: dampe-cli-jobs tag hello-x7k2 flight 2016")
@click.argument("job")
@click.argument("tags", nargs=-1)
def set_tags(context: Context, job: str, tags: tuple[str, ...]) -> None:
    """Set the tags of a job (by slug or name), in place of those that it has; none: take them off."""
    client = context.client()
    changed = client.change_job(_find(client, job)["slug"], tags=tags)
    context.say(f"{changed['title']}: {'tags ' + ', '.join(changed['tags']) if changed['tags'] else 'no tags'}")
    context.give(changed)


@command("archive", epilog="Example: dampe-cli-jobs archive hello-x7k2")
@click.argument("job")
def archive(context: Context, job: str) -> None:
    """Archive a job (by slug or name) whose instances are all over: lists leave it out unless asked for."""
    client = context.client()
    changed = client.change_job(_find(client, job)["slug"], archived=True)
    context.say(f"{changed['title']}: archived")
    context.give(changed)


@command("unarchive", epilog="Example: dampe-cli-jobs unarchive hello-x7k2")
@click.argument("job")
def unarchive(context: Context, job: str) -> None:
    """Take a job (by slug or name) out of the archive."""
    client = context.client()
    changed = client.change_job(_find(client, job)["slug"], archived=False)
    context.say(f"{changed['title']}: no longer archived")
    context.give(changed)


@command("remove", epilog="Example: dampe-cli-jobs remove hello-x7k2 --yes")
@click.argument("job")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(context: Context, job: str, yes: bool) -> None:
    """Remove a job (by slug or name) with all its instances, their history and logs, for good."""
    client = context.client()
    found = _find(client, job)
    title = found["title"]
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"this would remove {title} with all instances: add --yes to do so without a question")
        title = click.prompt(f"Type the name of the job ({title}) to remove it with {found['allotted']} instances")
    removed = client.remove_job(found["slug"], title)
    context.say(f"Removed {title} and {removed} instances")
    context.give({"removed": removed})


@command("clone", epilog="Example: dampe-cli-jobs clone hello-x7k2 hello-again --Ninstances 10")
@click.argument("job")
@click.argument("name")
@click.option("--Ninstances", "instances", type=click.IntRange(0), default=0, help="Instances to create at once.")
def clone(context: Context, job: str, name: str, instances: int) -> None:
    """Make a job of another NAME from the XML and the parents of a job (by slug or name)."""
    client = context.client()
    made = client.clone_job(_find(client, job)["slug"], name, instances)["jobs"][0]
    context.say(f"Added job {made['title']} ({made['slug']}) at {made['site']}{_numbers(made)}")
    context.give(made)


@command("export", epilog="Example: dampe-cli-jobs export hello-x7k2 --format csv --output hello.csv")
@click.argument("job")
@click.option("--format", "file_format", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@click.option("--status", default="", help="Only instances in this status, or in these with commas.")
@matching
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: standard output."
)
def export(context: Context, job: str, file_format: str, output: Path | None, **chosen: str | int | None) -> None:
    """Write the instances of a job (by slug or name), with status, host, times and peaks, as CSV or JSON."""
    client = context.client()
    parts = client.export(_find(client, job)["slug"], file_format, **_given(chosen))
    if output is None:
        for part in parts:
            click.echo(part, nl=False)
        return
    try:
        with whole_file(output) as stream:
            stream.writelines(parts)
    except OSError as error:
        raise InvalidInput(f"cannot write {output}: {error.strerror}") from error
    context.say(f"Wrote {output}")


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


@command("catalogue", epilog="Example: dampe-datacatalog -a list -s local -t root -l 10")
@click.option("-a", "--action", type=click.Choice(["register", "setStatus", "delete", "list"]), required=True)
@click.option(
    "-s", "--site", default="", help="Site where the file is; default: ours; Any: all (with --long, --csv)."
)
@click.option("-f", "--filename", help="Full name of the file.")
@click.option("-t", "--filetype", help="Type of the file; default: root, with --long and --csv any.")
@click.option(
    "-S",
    "--setStatus",
    "status",
    type=click.Choice(["New", "Copied", "Orphaned"]),
    help="Default: New, with --long and --csv any.",
)
@click.option("-x", "--expandVars", "expand", is_flag=True, help="Expand variables in the name.")
@click.option("-l", "--limit", type=click.IntRange(1), help="List at most so many; default: 100, with --csv all.")
@click.option("--long", is_flag=True, help="List all that is known of each file; with --json as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="List all that is known of each file as CSV.")
@click.option("--name", default="", help="Only names that begin with this (/..., root://...) or have it somewhere.")
@click.option("--sort", type=click.Choice(["time", "name"]), default="time", help="The latest first, or by name.")
def catalogue(
    context: Context,
    action: str,
    site: str,
    filename: str | None,
    filetype: str | None,
    status: str | None,
    expand: bool,
    limit: int | None,
    long: bool,
    as_csv: bool,
    name: str,
    sort: str,
) -> None:
    """Register files in the data catalogue, list them, set their status or delete them."""
    site = site or context.settings.site.name
    if action == "list" and (long or as_csv or name):
        chosen = {"site": "" if site == "Any" else site, "filetype": filetype or "", "status": status or ""}
        return _list_long(context, as_csv, limit, chosen | {"name": name, "sort": sort})
    filetype, status = filetype or "root", status or "New"
    if action == "list":
        names = context.client().files(site=site, status=status, filetype=filetype, most=limit or 100)
        context.say(f"found {len(names)} files")
        for found in names:
            context.say(printable(found))
        return context.give(names)
    if not filename:
        raise InvalidInput(f"--filename is needed to {action}")
    path = os.path.abspath(os.path.expandvars(filename) if expand else filename)
    state = "New" if action == "register" else status
    done = context.client().change_file(action, path, site=site, filetype=filetype, status=state)
    context.say(f"{action} {path}: done")
    return context.give(done)


FILE_COLUMNS = ("filename", "site", "filetype", "status", "created_at", "last_update")


def _list_long(context: Context, as_csv: bool, limit: int | None, chosen: Mapping[str, str]) -> None:
    rows = context.client().file_rows(**chosen, most=limit or (None if as_csv else 100))
    if as_csv:
        for line in csv_lines(FILE_COLUMNS, rows):
            click.echo(line, nl=False)
    elif context.as_json:
        context.give(list(rows))
    else:
        context.table(FILE_COLUMNS, [[printable(row[column]) for column in FILE_COLUMNS] for row in rows])
