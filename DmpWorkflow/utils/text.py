"""Texts of others, made fit to be shown. Pure."""

import json

LONGEST_LINE = 20_000  # characters of a message


def printable(text: object) -> str:
    """Return a text with its control characters shown, line ends and tabs kept."""
    return "".join(letter if letter in "\n\t" or letter.isprintable() else _shown(letter) for letter in str(text))


def one_line(text: object) -> str:
    """Return a text as one line, bounded: line ends and other control characters are shown."""
    line = "".join(letter if letter.isprintable() else _shown(letter) for letter in str(text))
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


def first_line(error: BaseException) -> str:
    """Return what of an error fits into another message: its first line, bounded."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def readable_json(value: object) -> str:
    """Return JSON for people and programs: letters stay as they are, all that is no letter or sign is escaped."""
    return escaped(json.dumps(value, indent=2, ensure_ascii=False))


def escaped(text: str) -> str:
    """Return a JSON text with all characters escaped that are neither printable nor a line end."""
    if text.isprintable():
        return text
    return "".join(letter if letter == "\n" or letter.isprintable() else _escaped(letter) for letter in text)


def _shown(letter: str) -> str:
    return chr(0x2400 + ord(letter)) if ord(letter) < 32 else "\N{REPLACEMENT CHARACTER}"


def _escaped(letter: str) -> str:
    return json.dumps(letter)[1:-1]


def numbered(number: int, noun: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
