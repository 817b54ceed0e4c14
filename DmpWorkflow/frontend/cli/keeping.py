"""Commands that keep a server's data: backup and restore, upgrade, takeover."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.frontend.cli.server import opened_database
from DmpWorkflow.utils.errors import InvalidInput

if TYPE_CHECKING:
    from DmpWorkflow.core.database.archive import Contents

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@command("backup", epilog="Example: dampe-server backup /backup/dampe-monday --replace")
@FILE
@click.option("--replace", is_flag=True, help="Replace FILE, once the new backup is whole.")
@click.option("--verify", is_flag=True, help="Make no backup: read FILE and tell whether it is a whole one.")
def backup(context: Context, file: Path, replace: bool, verify: bool) -> None:
    """Write the database to FILE as it is at one moment, while the server runs.

    FILE holds what credentials are checked with, so only its owner may read it.
    """
    if verify:
        from DmpWorkflow.core.database import archive

        _tell(context, archive.verify(file))
        return
    with opened_database(context) as database, _files_plainly(file):
        from DmpWorkflow.core.database.backup import back_up

        documents = back_up(database, file, replace)
    context.say(f"{file}: {sum(documents.values())} documents, {file.stat().st_size} bytes")
    context.give({"result": "ok", "file": str(file), "bytes": file.stat().st_size, "documents": documents})


@command("restore", epilog="Example: dampe-server restore /backup/dampe-monday --dry-run")
@FILE
@click.option("--dry-run", is_flag=True, help="Only tell whether FILE is whole and could be restored.")
@click.option("--replace", metavar="NAME", help="Replace what is in the database; NAME is its name, to be sure.")
def restore(context: Context, file: Path, dry_run: bool, replace: str | None) -> None:
    """Fill the configured database from FILE; stop all servers first.

    A restore that was interrupted is repeated; servers refuse to start until it is whole.
    """
    with opened_database(context) as database:
        from DmpWorkflow.core.database import restore as restoring

        if dry_run:
            _tell(context, restoring.check(database, file, replace))
            return
        done = restoring.restore(database, file, replace)
    documents = done.contents.documents
    context.say(f"restored {sum(documents.values())} documents of {_moment(done.contents)}; {done.counts}")
    context.say(f"new attempts have numbers above {done.floor}")
    context.give({"result": "ok", "documents": documents, "counts": done.counts, "floor": done.floor})


@command("migrate", epilog="Example: dampe-server migrate")
def migrate(context: Context) -> None:
    """Bring the database of an earlier version of the program up to this one; stop all servers first.

    It can be interrupted and repeated.
    """
    with opened_database(context) as database:
        from DmpWorkflow.core.database import migrations, schema

        reached = migrations.migrate(database, context.say)
        database.prepare()
    context.say(f"the database has schema {schema.VERSION}")
    context.give({"result": "ok", "schema": schema.VERSION, "migrated": reached})


@command(
    "import-legacy", epilog="Example: dampe-server import-legacy --from mongodb://db1/workflow --timezone Europe/Rome"
)
@click.option(
    "--from",
    "uri",
    required=True,
    metavar="URI",
    envvar="DAMPE_LEGACY_URI",
    help="The original's database, mongodb://host:port/name; or DAMPE_LEGACY_URI, which nobody else sees.",
)
@click.option("--timezone", required=True, help="Zone of the original server's clock, whose times it stored.")
@click.option("--dry-run", is_flag=True, help="Only report.")
def import_legacy(context: Context, uri: str, timezone: str, dry_run: bool) -> None:
    """Take over a database of the original (which is only read) into the configured one.

    It can be repeated: what is new or changed there comes along, and what was worked on here stays. Prints a report;
    ends with 1 if something was left out.
    """
    zone = _zone(timezone)
    with opened_database(context) as database:
        from DmpWorkflow.core.database import takeover
        from DmpWorkflow.core.database.submission import Words

        database.prepare()
        known = context.settings.jobdb
        words = Words(types=known.task_types, sites=known.batch_sites)
        with takeover.opened(uri) as source:
            report = takeover.take_over(database, source, zone, words, dry_run)
    for line in report.lines():
        context.say(line)
    context.give({"result": "nok" if report.skipped else "ok", "dry_run": dry_run} | report.as_document())
    if report.skipped:
        sys.exit(1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            f"--timezone {name!r}: expected a name like Europe/Rome (if that is one: apt install tzdata)"
        ) from error


def _tell(context: Context, contents: "Contents") -> None:
    documents = contents.documents
    context.say(
        f"a whole backup of database {contents.header.database} at {_moment(contents)} by version "
        f"{contents.header.program}, schema {contents.header.schema}: {sum(documents.values())} documents"
    )
    if contents.differing:
        context.say(f"the counters of {contents.differing} jobs in it are wrong: repair-counts after a restore")
    given: dict[str, Any] = vars(contents.header) | {"moment": _moment(contents)}
    context.give({"result": "ok", "documents": documents, "wrong_counters": contents.differing} | given)


def _moment(contents: "Contents") -> str:
    return contents.header.moment.isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _files_plainly(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from error
