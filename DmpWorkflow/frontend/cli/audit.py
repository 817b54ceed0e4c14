"""The command that reads the audit log."""

import json
from datetime import datetime

import click

from DmpWorkflow.frontend.cli.common import Context, command

COLUMNS = ("time", "who", "role", "address", "action", "target", "before", "after")
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"])


@command("audit", epilog="Example: dampe audit --since 2026-11-01 --action job.remove")
@click.option("--since", type=TIME, help="From this time on, in UTC.")
@click.option("--until", type=TIME, help="Before this time, in UTC.")
@click.option("--who", default="", help="What this user or token changed.")
@click.option("--action", default="", help="What was done: job.submit, job.remove, token.create, login.failed ...")
@click.option("--target", default="", help="What was changed: job/SLUG, token/NAME, user/NAME, files/SITE ...")
@click.option("--most", type=click.IntRange(1), default=100, show_default=True, help="Rows to show.")
def audit(
    context: Context, since: datetime | None, until: datetime | None, who: str, action: str, target: str, most: int
) -> None:
    """List who changed what, the newest first."""
    chosen = {"who": who, "action": action, "target": target}
    chosen |= {name: time.isoformat() for name, time in (("since", since), ("until", until)) if time}
    rows = list(context.client().audit(most=most, **chosen))
    context.give(rows)
    if not context.as_json:
        context.table(COLUMNS, [[_cell(row[column]) for column in COLUMNS] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else "-"
    return value or "-"
