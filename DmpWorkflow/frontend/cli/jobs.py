"""Commands that list jobs, watch them and change them."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from DmpWorkflow.client import Client
from DmpWorkflow.core.lifecycle import ACTIVE, FINAL, MajorStatus
from DmpWorkflow.core.retries import MOST_RETRIES, words_of
from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.frontend.cli.matching import given, matching
from DmpWorkflow.frontend.cli.submission import numbers_made
from DmpWorkflow.utils.errors import InvalidInput, NotFound
from DmpWorkflow.utils.files import whole_file
from DmpWorkflow.utils.units import parse_clock

SORTS = ("created", "title", "site", "type", "progress", "failed", "total")
SHORT = {
    "New": "new", "Submitted": "sub", "Running": "run", "Suspended": "susp", "Done": "done", "Failed": "fail",
    "Terminated": "term", "Unknown": "unkn",
}  # fmt: skip


INSTANCE_SORTS = ("number", "last_update", "host", "attempt", "cpu_peak", "memory_peak")


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
    rows = list(client.instances(found["slug"], most=limit, descending=not ascending, **given(chosen)))
    context.give(found | {"instances": rows})
    if context.as_json:
        return None
    context.say(f"{found['title']} ({found['type']}) at {found['site']}, priority {found['priority']}")
    if found["paused"]:
        context.say(f"paused: {found['paused']}")
    context.say(_in_words(found["counts"]))
    columns = ["instance_id", "status", "minor_status", "attempt", "hostname", "batch_id", "last_update"]
    context.table(columns, [[row[column] if row[column] is not None else "" for column in columns] for row in rows])
    return None


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
    """Watch a job (by slug or name) until all is over or it is paused; fails if some did not succeed."""
    client = context.client()
    slug = _find(client, job)["slug"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=context.verbosity < 0) as progress:
        task = progress.add_task(job)
        while True:
            job_now = client.job(slug)
            counts = job_now["counts"]
            over = sum(counts[status] for status in FINAL)
            total = sum(counts.values())
            progress.update(task, total=total, completed=over)
            if over == total or (job_now["paused"] and not any(counts[status] for status in ACTIVE)):
                break
            time.sleep(interval)
    context.say(_in_words(counts))
    if job_now["paused"]:
        context.say(f"paused: {job_now['paused']}; dampe-cli-jobs resume {slug} lets it go on")
    context.give(counts)
    if counts[MajorStatus.DONE] != total:
        sys.exit(1)


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


@command("retries", epilog="Example: dampe-cli-jobs retries hello-x7k2 3 --on site,lost")
@click.argument("job")
@click.argument("retries", type=click.IntRange(0, MOST_RETRIES))
@click.option("--on", default=None, help="After which failures: site, payload, limits, lost, or details.")
@click.option("--lost-after", default=None, metavar="HH:MM", help="Give up after so much silence; 00:00: as usual.")
def set_retries(context: Context, job: str, retries: int, on: str | None, lost_after: str | None) -> None:
    """Let instances of a job (by slug or name) that fail from now on start again, each at most so often."""
    client = context.client()
    words = None if on is None else words_of(on)
    silence = None if lost_after is None else parse_clock(lost_after)
    changed = client.change_job(_find(client, job)["slug"], retries=retries, retry_on=words, lost_after=silence)
    context.say(
        f"{changed['title']}: {changed['retries']} retries{' after ' if changed['retry_on'] else ''}"
        f"{', '.join(changed['retry_on'])}"
    )
    context.give(changed)


@command("pause", epilog="Example: dampe-cli-jobs pause hello-x7k2")
@click.argument("job")
def pause(context: Context, job: str) -> None:
    """Hand out nothing more of a job (by slug or name); what runs goes on."""
    _change(context, job, "paused", paused=True)


@command("resume", epilog="Example: dampe-cli-jobs resume hello-x7k2")
@click.argument("job")
def resume(context: Context, job: str) -> None:
    """Let a job (by slug or name) go on that is paused, by somebody or by itself after many failures."""
    _change(context, job, "goes on", paused=False)


@command("archive", epilog="Example: dampe-cli-jobs archive hello-x7k2")
@click.argument("job")
def archive(context: Context, job: str) -> None:
    """Archive a job (by slug or name) whose instances are all over: lists leave it out unless asked for."""
    _change(context, job, "archived", archived=True)


@command("unarchive", epilog="Example: dampe-cli-jobs unarchive hello-x7k2")
@click.argument("job")
def unarchive(context: Context, job: str) -> None:
    """Take a job (by slug or name) out of the archive."""
    _change(context, job, "no longer archived", archived=False)


def _change(context: Context, job: str, told: str, paused: bool | None = None, archived: bool | None = None) -> None:
    client = context.client()
    changed = client.change_job(_find(client, job)["slug"], paused=paused, archived=archived)
    context.say(f"{changed['title']}: {told}")
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
    context.say(f"Added job {made['title']} ({made['slug']}) at {made['site']}{numbers_made(made)}")
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
    parts = client.export(_find(client, job)["slug"], file_format, **given(chosen))
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
