"""What replies to administrators look like."""

from typing import Any, Literal

from pydantic import BaseModel

from DmpWorkflow.frontend.api.replies import Reply


class Account(BaseModel):
    """A token or a user, less the secret."""

    name: str
    role: str
    site: str | None
    created_at: str
    last_used: str | None


class TokenRow(Account):
    """A token, less its secret; ``expires`` is null for one that never does."""

    expires: str | None


class UserRow(Account):
    """A user, less the password."""

    disabled: bool


class Tokens(Reply):
    """GET /administration/tokens/."""

    tokens: list[TokenRow]


class MadeToken(Reply):
    """POST /administration/tokens/: the token, which nobody can see again."""

    token: str


class Users(Reply):
    """GET /administration/users/."""

    users: list[UserRow]


class KnownWord(BaseModel):
    """A type or site: whether it is configured, and how many jobs use it."""

    word: str
    configured: bool
    jobs: int


class KnownWords(Reply):
    """GET /administration/words/."""

    types: list[KnownWord]
    sites: list[KnownWord]


class ServerHealth(BaseModel):
    """The server process that answered."""

    version: str
    python: str
    hostname: str
    auth: Literal["required", "optional", "off"]
    open_to: str


class Member(BaseModel):
    """A member of the replica set."""

    name: str
    state: str
    healthy: bool


class DatabaseHealth(BaseModel):
    """The database; ``connections`` and ``members`` only where its user has the role clusterMonitor."""

    version: str
    name: str
    replica_set: str
    members: list[Member]
    connections: int | None
    documents: int
    data_bytes: int
    index_bytes: int
    storage_bytes: int


class DetailedHealth(Reply):
    """GET /administration/health/."""

    server: ServerHealth
    database: DatabaseHealth


class ActionRow(BaseModel):
    """A maintenance action with its last result; ``started`` is null where it was never run."""

    name: str
    title: str
    text: str
    started: str | None
    ended: str | None
    result: str
    by: str
    dry_run: bool
    ok: bool


class Maintenance(Reply):
    """GET /administration/maintenance/."""

    actions: list[ActionRow]


class Maintained(Reply):
    """POST /administration/maintenance/."""

    action: ActionRow


class AuditRow(BaseModel):
    """A change: who made it, from where, and the fields that did change."""

    id: str
    time: str
    who: str
    role: str
    address: str
    action: str
    target: str
    before: dict[str, Any]
    after: dict[str, Any]


class AuditLog(Reply):
    """GET /administration/audit/."""

    rows: list[AuditRow]
    next: str | None
