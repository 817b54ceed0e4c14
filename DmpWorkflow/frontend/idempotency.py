"""What identifies a request that creates, so that its sender may repeat it when the reply was lost."""

import hashlib
import json
import re

from flask import request

from DmpWorkflow.core.database.creation_requests import CreationRequest
from DmpWorkflow.frontend.access import principal
from DmpWorkflow.frontend.parameters import json_object
from DmpWorkflow.utils.errors import InvalidInput

HEADER = "Idempotency-Key"
PATTERN = r"^[!-~]{1,255}$"


def creation_request() -> CreationRequest | None:
    """Return what identifies this request, None if its sender gave it no key; raises InvalidInput for a bad one."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not re.fullmatch(PATTERN, key):
        raise InvalidInput(f"{HEADER}: expected 1 to 255 printable ASCII characters, without spaces")
    who = principal()
    return CreationRequest(f"{who.role} {who.name}", key, _digest())


def _digest() -> str:
    """Return what two requests that say the same have in common."""
    query, form = sorted(request.args.items(multi=True)), sorted(request.form.items(multi=True))
    said = [request.path, query, form, json_object() if request.is_json else None]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for file in request.files.values():
        digest.update(file.read())
        file.seek(0)
    return digest.hexdigest()
