"""What all commands share: options, settings, output, and errors as one line."""

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.utils import log
from DmpWorkflow.utils.errors import DmpWorkflowError
from DmpWorkflow.utils.text import one_line, printable, readable_json

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = """\
\b
Exit codes:
  0  done              4  the present state does not allow it
  1  failed            5  the credential does not allow it
  2  bad input         6  server or batch system do not answer: try again
  3  no such thing     7  the configuration is not valid
"""


@dataclass
class Context:
    """The options that every command has."""

    config: Path | None
    as_json: bool
    verbosity: int

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings; warnings about them go to stderr, once."""
        loaded = load(self.config)
        for warning in loaded.warnings if self.verbosity >= 0 else ():
            complain("warning", warning)
        return loaded.settings

    def client(self) -> Client:
        """Return a client of the configured server."""
        server = self.settings.server
        return Client(server.url, server.token, server.ca_file, server.patience)

    def say(self, text: str) -> None:
        """Print a line for people, unless they asked for JSON or quiet."""
        if not self.as_json and self.verbosity >= 0:
            click.echo(printable(text))

    def give(self, value: Any) -> None:
        """Print a result as JSON, if it was asked for."""
        if self.as_json:
            click.echo(readable_json(value))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print rows: a table on a terminal, words separated by tabs in a pipe."""
        if not sys.stdout.isatty():
            for row in [columns, *rows]:
                click.echo("\t".join(map(one_line, row)))
            return
        table = Table(*columns)
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))  # no markup in what others wrote
        Console().print(table)


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command that has the common options and gets a Context first; errors become one line."""

    def make(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(config: Path | None, as_json: bool, verbose: int, quiet: int, **options: Any) -> Any:
            context = Context(config, as_json, verbose - quiet)
            _set_up_log(context.verbosity)
            with errors_as_one_line(context):
                return function(context, **options)

        wrapped: Callable[..., Any] = run
        for option in reversed(COMMON):
            wrapped = option(wrapped)
        names = {"help_option_names": ["-h", "--help"]}
        decorate: Callable[[Callable[..., Any]], click.Command]
        decorate = click.command(name, context_settings=names, **settings)
        return decorate(wrapped)

    return make


COMMON = (
    click.option("--config", type=click.Path(path_type=Path), help="Configuration file to use."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-v", "--verbose", count=True, help="Say more."),
    click.option("-q", "--quiet", count=True, help="Say less."),
)


def complain(kind: str, text: object) -> None:
    """Print an error or a warning for people, whatever others wrote into it."""
    click.echo(f"{kind}: {printable(text)}", err=True)


class errors_as_one_line:
    """End the program with one line and an exit code when something of ours goes wrong."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, DmpWorkflowError):
            return
        if self.context.verbosity > 1:
            logging.getLogger(__name__).error("", exc_info=error)
        complain("error", error)
        sys.exit(error.exit_code)


def _set_up_log(verbosity: int) -> None:
    level = logging.ERROR if verbosity < 0 else logging.INFO if verbosity == 0 else logging.DEBUG
    log.set_up("%(asctime)s %(levelname)s %(message)s", level)
    logging.getLogger("urllib3").setLevel(logging.ERROR if verbosity < 1 else logging.DEBUG)  # tells of each retry
