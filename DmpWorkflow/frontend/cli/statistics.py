"""Commands that say how sites and jobs do: what the first page and those of sites and jobs show."""

import click

from DmpWorkflow.frontend.cli.common import Context, command

GROUPED_BY = {"reason": "minor_status", "host": "hostname", "line": "last_line"}


@command("status", epilog="Example: dampe status --site CNAF")
@click.option("--site", default="", help="Only this site.")
def status(context: Context, site: str) -> None:
    """Say which site is sick and why, and what failed most within the last day."""
    client = context.client()
    sites, failures = client.site_healths(site), client.failures(site)
    context.give({"sites": sites, "failures": failures})
    if context.as_json:
        return
    columns = ["site", "light", "reason", "Running", "Submitted", "New", "failing", "last_beat"]
    context.table(columns, [[_cell(one, column) for column in columns] for one in sites])
    if failures:
        columns = ["number", "site", "status", "minor_status"]
        context.table(columns, [[one[column] for column in columns] for one in failures])


def _cell(health: dict[str, object], column: str) -> object:
    counts = health["counts"]
    assert isinstance(counts, dict)  # noqa: S101 - for the type checker
    if column in counts:
        return counts[column]
    value = health[column]
    if column == "failing":
        return "-" if value is None else f"{value:.0%}"
    return "-" if value is None else value


@command("hosts", epilog="Example: dampe site hosts CNAF")
@click.argument("site")
def hosts(context: Context, site: str) -> None:
    """List a site's hosts of yesterday and today, those that fail most first."""
    found = context.client().hosts(site)
    context.give(found)
    if not context.as_json:
        columns = ["hostname", "rate", "done", "failed", "terminated"]
        context.table(
            columns, [[one["hostname"], f"{one['rate']:.0%}", *(one[name] for name in columns[2:])] for one in found]
        )


@command("failures", epilog="Example: dampe-cli-jobs failures 4f2a91c07b1e --by host")
@click.argument("slug")
@click.option(
    "--by", type=click.Choice(list(GROUPED_BY)), default="reason", show_default=True, help="What to group by."
)
def failures(context: Context, slug: str, by: str) -> None:
    """Say what a job's failures have in common, with the number of one instance of each kind."""
    found = context.client().job_failures(slug, GROUPED_BY[by])
    context.give(found)
    if not context.as_json:
        context.table(
            ["number", "example", by], [[one["number"], one["example"], one["value"] or "-"] for one in found]
        )


@command("progress", epilog="Example: dampe-cli-jobs progress 4f2a91c07b1e")
@click.argument("slug")
def progress(context: Context, slug: str) -> None:
    """Say how far a job is, how fast it goes, when it will end at this pace, and how efficient it is."""
    found = context.client().job_progress(slug)
    context.give(found)
    efficiency = found["efficiency"]
    context.say(f"over: {found['over']} of {found['total']}")
    context.say(f"rate: {found['per_hour']:.1f} per hour")
    context.say(f"expected end: {found['expected_end'] or '-'}")
    context.say(f"events: {found['events']}")
    context.say(f"CPU efficiency: {'-' if efficiency is None else f'{efficiency:.0%}'}")
