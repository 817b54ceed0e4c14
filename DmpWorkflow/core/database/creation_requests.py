"""Requests that create, by the key that their sender gave them: repeated, they are answered as the first time.

The answer is stored by the transaction that creates: whenever a server dies, there are both or neither.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from DmpWorkflow.core.database import clock
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.utils.errors import InvalidInput

KEEP_ANSWER = timedelta(days=1)


@dataclass(frozen=True)
class CreationRequest:
    """``key`` is what ``sender`` calls this request, and ``digest`` stands for all that it says."""

    sender: str
    key: str
    digest: str

    @property
    def id(self) -> str:
        """What the request is stored under: nobody gets another sender's answer by guessing a key."""
        return hashlib.sha256(f"{self.sender}\0{self.key}".encode()).hexdigest()


def create_once(
    database: Database, request: CreationRequest | None, create: Callable[[ClientSession], Document]
) -> Document:
    """Run ``create`` in a transaction and return its answer, or what this request was answered before.

    Raises InvalidInput if the sender used the key for another request.
    """

    def work(session: ClientSession) -> Document:
        if request is None:
            return create(session)
        known = _answer(database, request, session)
        return _created(database, request, create(session), session) if known is None else known

    try:
        return database.transaction(work)
    except DuplicateKeyError:  # somebody else made the same at the same time
        return database.transaction(work)


def _answer(database: Database, request: CreationRequest, session: ClientSession) -> Document | None:
    known = database.creation_requests.find_one({"_id": request.id}, session=session)
    if known is None:
        return None
    if known["digest"] != request.digest:
        raise InvalidInput(f"Idempotency-Key {request.key!r} was used for another request: make a new one for each")
    answer: Document = known["answer"]
    return answer


def _created(database: Database, request: CreationRequest, answer: Document, session: ClientSession) -> Document:
    record = {
        "_id": request.id,
        "digest": request.digest,
        "answer": answer,
        "forget_at": clock.now() + KEEP_ANSWER,
    }
    database.creation_requests.insert_one(record, session=session)
    return answer
