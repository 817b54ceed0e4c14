"""Rows as CSV and JSON, piece by piece. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from DmpWorkflow.utils.parts import in_parts
from DmpWorkflow.utils.text import escaped, printable

# With which spreadsheets take a cell for something to compute; some take the wide forms of Asian keyboards as well.
FORMULA = ("=", "+", "-", "@", "\t", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
ROWS_AT_ONCE = 1000  # in a piece


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the head and all rows, many lines at a time; no cell is a formula, and control characters are shown."""
    cells: Iterator[list[object]] = chain(
        [list(columns)], ([_cell(row[column]) for column in columns] for row in rows)
    )
    for some in in_parts(cells, ROWS_AT_ONCE):
        written = io.StringIO()
        csv.writer(written).writerows(some)
        yield written.getvalue()


def _cell(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one JSON list of all rows, a row in a line, many lines at a time, without holding them."""
    lines = (escaped(json.dumps(row, ensure_ascii=False)) for row in rows)
    separator = "[\n"
    for some in in_parts(lines, ROWS_AT_ONCE):
        yield separator + ",\n".join(some)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"
