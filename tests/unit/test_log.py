"""What others wrote stays within its line of a log."""

import logging

import pytest

from DmpWorkflow.utils.log import OneLine
from DmpWorkflow.utils.text import one_line, printable

EVIL = "a\r\n2026-01-01 00:00:00 INFO forged\x1b[31m\x00\u2028\u202e\x85\x9b"


def formatted(record: logging.LogRecord) -> str:
    return OneLine("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    "separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
)
def test_no_text_ends_a_line(separator: str) -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "job %s: %s", (f"a{separator}b", "c"), None)
    line = formatted(record)
    assert line.startswith("ERROR job a") and line.endswith("b: c") and len(line.splitlines()) == 1


def test_a_trace_cannot_pretend_to_be_a_line() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), (ValueError, error, error.__traceback__))
    first, *rest = formatted(record).splitlines()
    assert first == "ERROR failed"
    assert len(rest) >= 4 and all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest) and "forged" in rest[-1]


def test_control_characters_are_shown() -> None:
    assert one_line("a\tb\nc\x1b[0m") == "a␉b␊c␛[0m"
    assert printable("a\tb\nc\x1b[0m") == "a\tb\nc␛[0m"
    assert all(letter.isprintable() for letter in one_line(EVIL))
    assert one_line("Zürich ✔ 日本") == "Zürich ✔ 日本"
