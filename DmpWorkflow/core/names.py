"""Names that people choose, and others read: what may be in one. Pure.

Letters of any language are welcome. What cannot be seen, or reverses the text around it, is not: two names that look
the same should be the same. Letters of different alphabets that look alike are told apart by the slug and the owner.
"""

import re
import unicodedata

from DmpWorkflow.utils.errors import InvalidInput

LONGEST_TITLE = 255  # bytes in UTF-8: the longest name of a folder
LONGEST_RELEASE = 200  # bytes; it is part of the name of a folder
LONGEST_ACCOUNT = 64  # characters
# Printable by their category, and yet nothing to see: fillers, variation selectors, the blank of Braille; and
# what stands for bytes that were no text.
INVISIBLE = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffd\U000e0100-\U000e01ef]"
)
BIDIRECTIONAL = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def check_title(title: str) -> None:
    """Raise InvalidInput unless a job may have this name, which becomes that of a folder."""
    place = f"name {title[:40]!r}"
    if not title:
        raise InvalidInput("task name must be defined")
    if len(title.encode(errors="replace")) > LONGEST_TITLE:
        raise InvalidInput(
            f"{place}: expected at most {LONGEST_TITLE} bytes of printable characters: it names a folder"
        )
    if "/" in title or title.startswith("."):
        raise InvalidInput(
            f"{place}: expected printable characters without '/', and no '.' in front: it names a folder"
        )
    _check_readable(place, title)


def check_release(release: str) -> None:
    """Raise InvalidInput unless this can be the software release of a job, which names a folder as well."""
    if len(release.encode(errors="replace")) > LONGEST_RELEASE or "/" in release or not release.isprintable():
        raise InvalidInput(
            f"release {release[:40]!r}: expected at most {LONGEST_RELEASE} bytes of printable characters without '/'"
        )


def check_account(what: str, name: str) -> None:
    """Raise InvalidInput unless a token or a user (``what``) may have this name."""
    if not 0 < len(name) <= LONGEST_ACCOUNT:
        raise InvalidInput(f"{what}'s name needs 1 to {LONGEST_ACCOUNT} printable characters")
    _check_readable(f"{what}'s name {name!r}", name)


def _check_readable(place: str, name: str) -> None:
    if not name.isprintable() or INVISIBLE.search(name):
        raise InvalidInput(
            f"{place}: expected printable characters only, nothing invisible or that turns text around"
        )
    if name != name.strip():
        raise InvalidInput(f"{place}: expected no blanks at its ends")
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidInput(f"{place}: expected letters with their accents as one character each (Unicode's form NFC)")


def check_path(place: str, path: str) -> None:
    """Raise InvalidInput if a file's name has characters that mislead who reads it: controls, reversed text."""
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path) or BIDIRECTIONAL.search(path):
        raise InvalidInput(
            f"{place} {path[:40]!r}: expected no control characters and nothing that turns text around"
        )
