"""Texts of others, made fit to be shown. Pure."""


def printable(text: object) -> str:
    """Return a text with its control characters shown, line ends and tabs kept."""
    return "".join(letter if letter in "\n\t" or letter.isprintable() else _shown(letter) for letter in str(text))


def _shown(letter: str) -> str:
    return chr(0x2400 + ord(letter)) if ord(letter) < 32 else "\N{REPLACEMENT CHARACTER}"


def numbered(number: int, noun: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
