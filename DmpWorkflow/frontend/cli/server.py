"""Commands of a server; they work on the database itself."""

import os
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from DmpWorkflow.config.settings import ServerSettings
from DmpWorkflow.core.roles import split_role
from DmpWorkflow.frontend.cli.common import Context, command
from DmpWorkflow.utils.errors import ConfigurationError, DmpWorkflowError, Unavailable
from DmpWorkflow.utils.text import first_line

if TYPE_CHECKING:
    from DmpWorkflow.core.database.connection import Database, Document

ROLE = click.option(
    "--role",
    required=True,
    help="What it may do: read, submit, operator, admin, or site:NAME for the work of a site.",
)
SITE = click.option("--site", help="The site, for the role site; the same as --role site:NAME.")


@command("run", epilog="Example: dampe-server run --port 5000 --workers 2")
@click.option("--host", help="Address to listen on; default: [server] host.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; default: [server] port.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--threads", type=click.IntRange(1), default=16, show_default=True, help="Threads of each process.")
def run(context: Context, host: str | None, port: int | None, workers: int, threads: int) -> None:
    """Run the server until it is stopped."""
    server = context.settings.server
    with opened_database(context) as database:
        from DmpWorkflow.core.database import schema

        schema.check(database)  # one plain line now, rather than a worker that does not boot
    if context.config:
        os.environ["DAMPE_CONFIG"] = str(context.config.absolute())
    address = f"{host or server.host}:{port or server.port}"
    arguments = ["-m", "gunicorn", "--config", "python:DmpWorkflow.frontend.serving", "--bind", address]
    arguments += ["--workers", str(workers), "--threads", str(threads), *gunicorn_options(server)]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - we become the server


def gunicorn_options(server: ServerSettings) -> list[str]:
    """Return what gunicorn needs to know of TLS; raises ConfigurationError for what it could not use."""
    # What proxies say is left to the application, which knows how many there are.
    trusted_by_gunicorn = ["--forwarded-allow-ips", ""]
    if not server.certificate:
        if server.key:
            raise ConfigurationError("[server] key is set without certificate: set both, or none behind a proxy")
        return trusted_by_gunicorn
    key = server.key or server.certificate
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(server.certificate, key, _no_passphrase)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(f"[server] certificate {server.certificate} with key {key}: {why}") from error
    return [*trusted_by_gunicorn, "--certfile", server.certificate, "--keyfile", key]


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, which nobody could type when the server starts: remove that")


@command("init", epilog="Example: dampe-server init --config server.cfg")
def init(context: Context) -> None:
    """Make the indexes of the database; safe to be repeated."""
    with opened_database(context) as database:
        database.prepare()
    context.say(f"database {context.settings.database.name} is ready")
    context.give({"result": "ok"})


@command("check", epilog="Example: dampe-server check")
def check(context: Context) -> None:
    """Test what a server needs, one line each with the remedy; fails if something is missing."""
    failed = False
    checks = (("settings", _check_settings), ("access", _check_access), ("database", _check_database))
    for name, test in checks:
        try:
            context.say(f"ok    {name}: {test(context)}")
        except DmpWorkflowError as error:
            failed = True
            context.say(f"FAIL  {name}: {error}")
    context.give({"result": "nok" if failed else "ok"})
    if failed:
        sys.exit(1)


def _check_settings(context: Context) -> str:
    settings = context.settings
    if settings.global_.installation != "server":
        raise ConfigurationError("[global] installation is client: set it to server")
    if settings.server.certificate or settings.server.key:
        gunicorn_options(settings.server)
    return f"sites {', '.join(settings.jobdb.batch_sites)}"


def _check_access(context: Context) -> str:
    server = context.settings.server
    if server.auth == "off":
        raise ConfigurationError(f"[server] auth is off: {server.open_to}; set it to required")
    return f"open: without a credential, {server.open_to}" if server.open_to else "every client needs a credential"


def _check_database(context: Context) -> str:
    with opened_database(context) as database:
        database.prepare()
        version = database.client.server_info()["version"]
    return f"MongoDB {version}, a replica set, indexes in place"


@command("create", epilog="Example: dampe-server token create --name cnaf --role site:CNAF --expires 365")
@click.option("--name", required=True, help="Name of the token; what it submits belongs to this name.")
@ROLE
@SITE
@click.option("--expires", default="", help="After so many days, or with a date as in 2027-01-31 (UTC).")
def create_token(context: Context, name: str, role: str, site: str | None, expires: str) -> None:
    """Make a token and print it; nobody can see it again."""
    role, site = split_role(role, site)
    context.settings.jobdb.check_site(site)
    with opened_database(context) as database:
        from DmpWorkflow.core.database import credentials

        text, stored = credentials.create(database, name, role, site, credentials.expiry(expires))
    end = str(stored["expires"]) if stored["expires"] else None
    context.give({"token": text, "name": name, "role": role, "site": site, "expires": end})
    if not context.as_json:
        click.echo(text)


@command("list", epilog="Example: dampe-server token list")
def list_tokens(context: Context) -> None:
    """List tokens, less their secrets."""
    with opened_database(context) as database:
        from DmpWorkflow.core.database import credentials

        tokens = credentials.all_tokens(database)
    _list_accounts(context, tokens, "expires")


def _list_accounts(context: Context, accounts: "Sequence[Document]", also: str) -> None:
    columns = ["name", "role", "site", "created_at", "last_used", also]
    rows = [[str(account.get(column) or "-") for column in columns] for account in accounts]
    context.give([dict(zip(columns, row, strict=True)) for row in rows])
    if not context.as_json:
        context.table(columns, rows)


@command("revoke", epilog="Example: dampe-server token revoke cnaf")
@click.argument("name")
def revoke_token(context: Context, name: str) -> None:
    """Make a token worthless, at once."""
    with opened_database(context) as database:
        from DmpWorkflow.core.database import credentials

        credentials.revoke(database, name)
    context.say(f"revoked {name}")
    context.give({"result": "ok"})


PASSWORD_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, instead of asking for it."
)


@command("create", epilog="Example: dampe-server user create --name anna --role submit")
@click.option("--name", required=True, help="Name to log in with; what the user submits belongs to it.")
@ROLE
@SITE
@PASSWORD_STDIN
def create_user(context: Context, name: str, role: str, site: str | None, password_stdin: bool) -> None:
    """Make a user who logs in to the pages with a password."""
    role, site = split_role(role, site)
    context.settings.jobdb.check_site(site)
    password = _password(password_stdin)
    with opened_database(context) as database:
        from DmpWorkflow.core.database import users

        users.create(database, name, password, role, site)
    context.say(f"created {name}")
    context.give({"name": name, "role": role, "site": site})


@command("list", epilog="Example: dampe-server user list")
def list_users(context: Context) -> None:
    """List users."""
    with opened_database(context) as database:
        from DmpWorkflow.core.database import users

        found = users.all_users(database)
    _list_accounts(context, found, "disabled")


@command("password", epilog="Example: dampe-server user password anna")
@click.argument("name")
@PASSWORD_STDIN
def set_password(context: Context, name: str, password_stdin: bool) -> None:
    """Give a user another password; who is logged in as that user has to log in again."""
    password = _password(password_stdin)
    with opened_database(context) as database:
        from DmpWorkflow.core.database import users

        users.set_password(database, name, password)
    context.say(f"changed the password of {name}")
    context.give({"result": "ok"})


@command("disable", epilog="Example: dampe-server user disable anna")
@click.argument("name")
def disable_user(context: Context, name: str) -> None:
    """Keep a user out, at once, until "enable"; jobs and password stay."""
    _set_disabled(context, name, True)


@command("enable", epilog="Example: dampe-server user enable anna")
@click.argument("name")
def enable_user(context: Context, name: str) -> None:
    """Let a user in again who was disabled."""
    _set_disabled(context, name, False)


def _set_disabled(context: Context, name: str, disabled: bool) -> None:
    with opened_database(context) as database:
        from DmpWorkflow.core.database import users

        users.set_disabled(database, name, disabled)
    context.say(f"{'disabled' if disabled else 'enabled'} {name}")
    context.give({"result": "ok"})


@command("remove", epilog="Example: dampe-server user remove anna")
@click.argument("name")
def remove_user(context: Context, name: str) -> None:
    """Remove a user, at once."""
    with opened_database(context) as database:
        from DmpWorkflow.core.database import users

        users.remove(database, name)
    context.say(f"removed {name}")
    context.give({"result": "ok"})


def _password(from_stdin: bool) -> str:
    """Return the password, which is never an argument: those are seen by everybody on the machine."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    given: str = click.prompt("Password", hide_input=True, confirmation_prompt="Password again", err=True)
    return given


@command("maintain", epilog="Example: dampe-server maintain compare-counts")
@click.argument("action", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
def maintain(context: Context, action: str | None, dry_run: bool) -> None:
    """Do a maintenance ACTION; without one, list them with their last results. Fails if something is found wrong."""
    with opened_database(context) as database:
        from DmpWorkflow.core.database import maintenance
        from DmpWorkflow.frontend import housekeeping

        if action:
            options = maintenance.Options(dry_run, housekeeping.patience(context.settings.server))
            done = maintenance.run(database, action, f"command line on {socket.gethostname()}", options)
            context.say(done["result"])
            context.give(done)
            sys.exit(0 if done["ok"] else 1)
        rows = maintenance.rows(database)
    context.give(rows)
    if context.as_json:
        return
    columns = ["name", "started", "ended", "by", "result"]
    context.table(columns, [[row[column] or "-" for column in columns] for row in rows])


@contextmanager
def opened_database(context: Context) -> "Iterator[Database]":
    try:
        from pymongo.errors import PyMongoError

        from DmpWorkflow.core.database.connection import Database
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is missing: run pip install 'DmpWorkflow[server]'") from error
    settings = context.settings.database
    try:
        database = Database(settings.address, settings.name)
    except (PyMongoError, ValueError) as error:
        raise ConfigurationError(f"[database] uri: {error}") from error
    try:
        database.client.admin.command("ping")
        yield database
    except PyMongoError as error:
        raise Unavailable(f"MongoDB at [database] host {settings.host}: {first_line(error)}") from error
    finally:
        database.close()
