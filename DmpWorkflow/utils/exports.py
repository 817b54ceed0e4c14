"""Rows as CSV and JSON, piece by piece. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from DmpWorkflow.utils.text import printable

FORMULA = ("=", "+", "-", "@", "\t")  # with which spreadsheets take a cell for something to compute


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the head and a line for each row; no cell is a formula, and control characters are shown."""
    written = io.StringIO()
    writer = csv.writer(written)
    for cells in _chain(columns, rows):
        writer.writerow([_cell(cell) for cell in cells])
        yield written.getvalue()
        written.seek(0)
        written.truncate()


def _chain(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    yield list(columns)
    for row in rows:
        yield [row[column] for column in columns]


def _cell(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one JSON list of all rows, a row in a line, without holding them."""
    yield "["
    for number, row in enumerate(rows):
        yield (",\n" if number else "\n") + json.dumps(row, ensure_ascii=False)
    yield "\n]\n"
