"""Addresses that browsers tell us: which of them lead to pages of ours. Pure."""

from urllib.parse import urlsplit


def is_ours(address: str) -> bool:
    """Say whether an address names a page of this server by its path alone, in the eyes of any browser."""
    return address.startswith("/") and address.isprintable() and "\\" not in address and not address.startswith("//")


def path_of(address: str) -> str:
    """Return path and query of an address; an empty text for what is no address, or leads to another server."""
    try:
        found = urlsplit(address)._replace(scheme="", netloc="").geturl()
    except ValueError:
        return ""
    return found if is_ours(found) else ""
