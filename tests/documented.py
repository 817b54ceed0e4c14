"""The examples in the documentation, which tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def block(page: str, name: str) -> str:
    """Return the code block that follows ``<!-- name -->`` in a page."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert found is not None, f"{page} has no block {name}"
    return found[1]
