"""Exports as replies: rows that are sent while they are read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

from DmpWorkflow.utils.exports import csv_lines, json_lines


def as_file(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """Return a file of that name, CSV or JSON by its ending, with these columns of all rows."""
    is_csv = name.endswith(".csv")
    lines = csv_lines(columns, rows) if is_csv else json_lines(rows)
    reply = Response(lines, mimetype="text/csv" if is_csv else "application/json")
    reply.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return reply
