"""Dictionaries as old clients write them: JSON, or Python literals, read within bounds and never run. Pure."""

import ast
import json
import re
from typing import Any

from DmpWorkflow.utils.errors import InvalidInput

LONGEST_LITERAL = 64 * 1024  # characters of a dictionary inside a form field
DEEPEST_LITERAL = 20
# A quote that is not closed reaches to the end, so that no place is looked at twice.
BRACKETS = re.compile(r"""[(\[{}\])]|"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?""", re.DOTALL)


def dictionary(value: Any, field: str) -> dict[str, Any]:
    """Return a dictionary from an object, JSON text or a Python literal, as old clients write it."""
    if value in (None, "", "None"):
        return {}
    if isinstance(value, str):
        value = _literal(value, field)
    if not isinstance(value, dict):
        raise InvalidInput(f"{field}: expected a dictionary")
    return value


def _literal(text: str, field: str) -> Any:
    if len(text) > LONGEST_LITERAL:
        raise InvalidInput(f"{field}: longer than {LONGEST_LITERAL} characters")
    if _depth(text) > DEEPEST_LITERAL:
        raise InvalidInput(f"{field}: nested deeper than {DEEPEST_LITERAL}")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InvalidInput(f"{field}: neither JSON nor a Python literal") from error


def _depth(text: str) -> int:
    """Return how deep brackets are nested; those within quotes are text, such as a log's."""
    depth = deepest = 0
    for found in BRACKETS.findall(text):
        if found in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif found in ")]}":
            depth -= 1
    return deepest
