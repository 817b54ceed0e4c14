"""Seeds for payloads, reproducible from what names an attempt. Pure."""

import hashlib

LARGEST = 2**31 - 1  # generators of the field take a positive signed 32-bit integer


def random_seed(job_id: str, instance_id: int, attempt: int, base: int | None = None) -> int:
    """Return a seed between 1 and 2**31 - 1 that depends on all the arguments (SHA-256 of them).

    ``base`` is the site's configured seed, if it has one.
    """
    name = f"{'' if base is None else base}/{job_id}/{instance_id}/{attempt}"
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % LARGEST + 1
