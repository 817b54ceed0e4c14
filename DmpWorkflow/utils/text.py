"""Texts of others, made fit to be shown. Pure."""


def printable(text: object) -> str:
    """Return a text with its control characters shown, line ends and tabs kept."""
    return "".join(letter if letter in "\n\t" or letter.isprintable() else _shown(letter) for letter in str(text))


def one_line(text: object) -> str:
    """Return a text as one line: line ends and other control characters are shown."""
    return "".join(letter if letter.isprintable() else _shown(letter) for letter in str(text))


def _shown(letter: str) -> str:
    return chr(0x2400 + ord(letter)) if ord(letter) < 32 else "\N{REPLACEMENT CHARACTER}"
