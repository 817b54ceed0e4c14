"""What several fuzz tests share: texts made of good ones by accident or malice."""

from hypothesis import strategies as st

WORDS = (
    "", "\0", "\n", "\r", "|", ":", "-", "_", "+", ",", ".", "[", "]", "{", "}", "<", ">", "&", "'", '"', "\\", "$",
    "${A}", "=", ";", "%", "0", "-1", "1e999", "NaN", "9" * 25, "9" * 5000, "0x" + "f" * 5000,
    "\ud800", "\u202e", "é", "٣", "\x1b[31m", "<!DOCTYPE a>", "]]>", "&#0;", "null", "true", "[[[[", "dwf-",
    "dwf-6b04cc916a00b242cb9c95ef-1+99999999999999999-1",
)  # fmt: skip
PIECES = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES), min_size=1, max_size=6)


def damaged(text: str, changes: list[tuple[float, int, str]]) -> str:
    """Return a text with pieces of it replaced: where (0 to 1), how many characters, by what."""
    for place, length, piece in changes:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + length :]
    return text
