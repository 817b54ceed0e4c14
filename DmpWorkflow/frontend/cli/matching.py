"""The options that choose instances of a job."""

from collections.abc import Mapping
from typing import Any

import click

from DmpWorkflow.frontend.cli.common import Function

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


def given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that were given."""
    return {name: value for name, value in chosen.items() if value not in (None, "")}
