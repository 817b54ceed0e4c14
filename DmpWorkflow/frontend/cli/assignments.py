"""``--set-var``: "a=1;b=2", with quotes or a backslash for values that contain a semicolon. Pure."""

import re
from collections.abc import Iterable

from DmpWorkflow.utils.errors import InvalidInput

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables in these options; a later one wins.

    A value may contain "=". One with ";" or with blanks at its ends is put in quotes, single or double; a
    backslash keeps the character that follows. Raises InvalidInput.
    """
    variables: dict[str, str] = {}
    for text in texts:
        for part in _split(text):
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals or not NAME.fullmatch(name):
                raise InvalidInput(f"variable {part.strip()!r}: expected NAME=VALUE")
            variables[name] = _unquote(value)
    return variables


def overrides(texts: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return the variables as the server takes overrides."""
    items = parse_assignments(texts).items()
    return {"MetaData": [{"name": name, "value": value, "var_type": "string"} for name, value in items]}


def _split(text: str) -> list[str]:
    """Split at semicolons outside of quotes; empty parts are left out."""
    parts, quote, escaped = [""], "", False
    for letter in text:
        if not escaped and not quote and letter == ";":
            parts.append("")
            continue
        parts[-1] += letter
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and parts[-1].rstrip(letter).rstrip().endswith("="):
            quote = letter
    if quote:
        raise InvalidInput(f"variables {text!r}: the quote {quote} is not closed")
    return [part for part in parts if part.strip()]


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
