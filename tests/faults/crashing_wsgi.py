"""The application that kills its process where the file "crash", beside the configuration, says; once."""

import os
import signal
from pathlib import Path
from typing import Any

from flask import Response

from DmpWorkflow.core.database import creation, creation_requests, submission
from DmpWorkflow.frontend import wsgi

CRASH = Path(os.environ["DAMPE_CONFIG"]).with_name("crash")
CHUNK = 10  # instances of one transaction

app = wsgi.app


def crash(point: str) -> None:
    """End here, if the file says so."""
    if CRASH.exists() and CRASH.read_text() == point:
        CRASH.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Put the places to crash in."""
    created, fill, complete = creation_requests._created, creation._fill_chunk, creation.complete_creations

    def create_and_crash(*arguments: Any) -> Any:
        answer = created(*arguments)
        crash("in the transaction")
        return answer

    def crash_or_complete(*arguments: Any) -> None:
        crash("before the instances")
        complete(*arguments)

    def crash_or_fill(database: Any, job: Any, session: Any) -> bool:
        if database.instances.count_documents({"job": job}):
            crash("between two chunks")
        return fill(database, job, session)

    @app.after_request
    def crash_or_reply(reply: Response) -> Response:
        crash("before the reply")
        return reply

    creation.CHUNK = CHUNK
    replacements = {
        "_created": (create_and_crash, creation_requests),
        "_fill_chunk": (crash_or_fill, creation),
        "complete_creations": (crash_or_complete, creation, submission),
    }
    for name, (function, *modules) in replacements.items():
        for module in modules:
            setattr(module, name, function)


arm()
