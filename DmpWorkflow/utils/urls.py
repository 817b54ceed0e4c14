"""Addresses with a credential in them."""

import re
from urllib.parse import unquote

_WITH_CREDENTIAL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<credential>[^/?#]*)@(?P<rest>.*)", re.I | re.S)


def split_credential(url: str) -> tuple[str, str]:
    """Return the address without its ``user:password@``, and the password; an empty text where there is none."""
    found = _WITH_CREDENTIAL.fullmatch(url)
    if found is None:
        return url, ""
    return found["scheme"] + found["rest"], unquote(found["credential"].partition(":")[2])
