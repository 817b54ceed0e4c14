"""The command of the data catalogue."""

import os.path
from collections.abc import Mapping

import click

from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.exports import csv_lines
from DmpWorkflow.utils.text import printable


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
