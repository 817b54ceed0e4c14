"""The documents, with the original's collections and field names, and their indexes.

Hot paths read and write the collections directly, since building documents costs many times more than reading
them; what they store is what is declared here, and a test holds them to it. Times are in UTC.
"""

from typing import Any, ClassVar

from mongoengine import (
    BooleanField,
    DateTimeField,
    DictField,
    Document,
    DynamicField,
    FloatField,
    IntField,
    ListField,
    LongField,
    ObjectIdField,
    StringField,
)

HEARTBEAT_SECONDS = 30 * 24 * 3600  # that a heartbeat is kept
STATISTICS_SECONDS = 35 * 24 * 3600  # that a chart can look back


def _meta(collection: str, indexes: list[Any], inheritance: bool = True) -> dict[str, Any]:
    """Return what mongoengine needs to know; the original's documents all carry ``_cls``."""
    return {
        "collection": collection,
        "allow_inheritance": inheritance,
        "index_cls": False,
        "auto_create_index": False,
        "indexes": indexes,
    }


class Job(Document):
    """A job; ``allotted`` is the highest instance number given away, ``creations`` those not all stored yet.

    Of one that is ``archived``, or whose ``removing`` has begun, no instance becomes New any more.
    """

    meta: ClassVar[dict[str, Any]] = _meta(
        "job",
        [
            {"fields": ["title", "type", "execution_site"], "unique": True},
            {"fields": ["slug"], "unique": True},
            ["-created_at", "-id"],
            ["dependencies"],
            ["type", "execution_site"],
            {"fields": ["creations.since"], "name": "abandoned", "sparse": True},
        ],
    )
    created_at = DateTimeField(required=True)
    slug = StringField(required=True)
    title = StringField(required=True, max_length=255)
    body = StringField(required=True)
    digest = StringField(required=True)
    type = StringField(required=True)
    release = StringField()
    priority = IntField(default=0)
    dependencies = ListField(ObjectIdField())
    execution_site = StringField(required=True)
    allotted = LongField(default=0)
    creations = ListField(DictField())
    owner = StringField(default="")
    tags = ListField(StringField())
    archived = BooleanField(default=False)
    removing = BooleanField()
    retries = IntField(default=0)
    retry_on = ListField(StringField())
    lost_after = IntField()  # seconds of silence; missing: as the server's settings say
    paused = StringField()  # why
    failed_in_a_row = LongField()  # attempts whose payload failed, since one succeeded


class JobInstance(Document):
    """One instance of a job; ``body`` holds its overrides as JSON text.

    While it is New and may not be claimed for some time, ``waits_until`` is the end of that: of the lease if there is
    a ``claim``, else of the pause before a retry. Of one of the original's database, ``taken_over`` is when it was
    last changed there.

    Each index costs every report, also one that does not change it: for each index that a transaction may have to
    change MongoDB reads the description of all of them.
    """

    meta: ClassVar[dict[str, Any]] = _meta(
        "job_instance",
        [
            {"fields": ["job", "instanceId"], "unique": True},
            ["job", "status", "instanceId"],
            # Partial: only what can be claimed is in it, so that a claim costs the same whatever else is stored.
            {
                "fields": ["site", "-priority", "job", "instanceId"],
                "name": "claim_order",
                "partialFilterExpression": {"claimable": True},
            },
            {
                "fields": ["site", "job", "quiet", "stalled_since", "last_contact"],
                "name": "under_way",
                "partialFilterExpression": {"active": True},
            },
            {"fields": ["waits_until"], "name": "waits", "sparse": True},
        ],
    )
    job = ObjectIdField(required=True)
    instanceId = LongField(required=True)
    site = StringField(required=True)
    priority = IntField(default=0)
    created_at = DateTimeField(required=True)
    last_update = DateTimeField(required=True)
    last_contact = DateTimeField()
    body = StringField()
    status = StringField(required=True)
    minor_status = StringField()
    status_history = ListField(DictField())
    batchId = StringField()
    hostname = StringField()
    Nevents = LongField()
    cpu = ListField(DictField())
    memory = ListField(DictField())
    cpu_max = FloatField()
    mem_max = FloatField()
    cpu_peak = FloatField()
    memory_peak = FloatField()
    log = StringField()
    attempt = IntField(default=0)
    attempts = ListField(DictField())
    handed_out = BooleanField(default=False)
    claimable = BooleanField(default=False)
    active = BooleanField()
    waiting_for = ListField(ObjectIdField())
    claim = DictField()
    waits_until = DateTimeField()
    sequence = LongField()
    runner = StringField()
    started_at = DateTimeField()
    last_line = StringField()
    lost = BooleanField()
    kill = BooleanField()
    quiet = BooleanField()  # its client tells of changes only, and gives no signs of life
    stalled_since = DateTimeField()
    retried = IntField()  # automatic retries since it was made or rolled back
    paused = BooleanField()  # as its job
    taken_over = DateTimeField()
    avoided = IntField()  # times that it was kept from a host


class InstanceCount(Document):
    """A slot of a job's counters."""

    meta: ClassVar[dict[str, Any]] = _meta("instance_count", [["job"], ["site"]], inheritance=False)
    id = StringField(primary_key=True)
    job = ObjectIdField(required=True)
    site = StringField(required=True)
    status = DictField()
    locks = LongField()


class Claim(Document):
    """What a request of an agent was about to take."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "claim", [{"fields": ["forget_at"], "expireAfterSeconds": 0}], inheritance=False
    )
    id = StringField(primary_key=True)
    site = StringField(required=True)
    agent = StringField(required=True)
    candidates = ListField(DictField())
    expires = DateTimeField(required=True)
    forget_at = DateTimeField(required=True)


class CreationRequest(Document):
    """What a request was answered that created something, by its sender and key."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "creation_request", [{"fields": ["forget_at"], "expireAfterSeconds": 0}], inheritance=False
    )
    id = StringField(primary_key=True)
    digest = StringField(required=True)
    answer = DictField()
    forget_at = DateTimeField(required=True)


class Credential(Document):
    """A token, by its digest."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "credential",
        [{"fields": ["digest"], "unique": True}, {"fields": ["name"], "unique": True}],
        inheritance=False,
    )
    name = StringField(required=True)
    role = StringField(required=True)
    site = StringField()
    digest = StringField(required=True)
    created_at = DateTimeField(required=True)
    last_used = DateTimeField()
    expires = DateTimeField()


class User(Document):
    """Somebody who logs in with a password."""

    meta: ClassVar[dict[str, Any]] = _meta("user", [{"fields": ["name"], "unique": True}], inheritance=False)
    name = StringField(required=True)
    role = StringField(required=True)
    site = StringField()
    password = StringField(required=True)
    created_at = DateTimeField(required=True)
    last_used = DateTimeField()
    disabled = BooleanField(default=False)


class Login(Document):
    """Somebody's being logged in, by the digest of what the cookie holds; ``account`` is a user or a token."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "login", [["account"], {"fields": ["expires"], "expireAfterSeconds": 0}], inheritance=False
    )
    id = StringField(primary_key=True)
    kind = StringField(required=True)
    account = ObjectIdField(required=True)
    stamp = StringField()
    expires = DateTimeField(required=True)


class Setting(Document):
    """A value that the servers share."""

    meta: ClassVar[dict[str, Any]] = _meta("setting", [], inheritance=False)
    id = StringField(primary_key=True)
    value = DynamicField(required=True)


class Maintenance(Document):
    """The last run of a maintenance action, by its name; ``ended`` is missing while it runs."""

    meta: ClassVar[dict[str, Any]] = _meta("maintenance", [], inheritance=False)
    id = StringField(primary_key=True)
    started = DateTimeField(required=True)
    ended = DateTimeField()
    result = StringField()
    ok = BooleanField()
    dry_run = BooleanField()
    by = StringField(required=True)


class HeartBeat(Document):
    """The last sign of life of a process on a host."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "heart_beat",
        [
            {"fields": ["hostname", "process"], "unique": True},
            {"fields": ["timestamp"], "expireAfterSeconds": HEARTBEAT_SECONDS},
        ],
    )
    hostname = StringField(required=True)
    process = StringField()
    version = StringField()
    timestamp = DateTimeField(required=True)


class Agent(Document):
    """The last sign of life of a site's agent."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "agent",
        [
            {"fields": ["site", "agent"], "unique": True},
            {"fields": ["last_beat"], "expireAfterSeconds": STATISTICS_SECONDS},  # any number of names may come
        ],
        inheritance=False,
    )
    site = StringField(required=True)
    agent = StringField(required=True)
    hostname = StringField()
    version = StringField()
    problem = StringField()
    holds = LongField()
    last_beat = DateTimeField(required=True)


class AgentHistory(Document):
    """What an agent told in a quarter of an hour; ``beats`` is how often."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "agent_history",
        [["site", "time"], {"fields": ["time"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = StringField(primary_key=True)
    site = StringField(required=True)
    agent = StringField(required=True)
    time = DateTimeField(required=True)
    beats = LongField(default=0)
    holds = LongField()
    problem = StringField()


class Activity(Document):
    """How many instances of a site or a job (``scope``) began or ended in an hour."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "activity",
        [["scope", "time"], {"fields": ["time"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = StringField(primary_key=True)
    scope = StringField(required=True)
    time = DateTimeField(required=True)
    Running = LongField()
    Done = LongField()
    Failed = LongField()
    Terminated = LongField()


class Failure(Document):
    """How often a site had one kind of failure in an hour."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "failure",
        [["site", "time"], {"fields": ["time"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = StringField(primary_key=True)
    site = StringField(required=True)
    status = StringField(required=True)
    minor_status = StringField()
    time = DateTimeField(required=True)
    number = LongField()


class HostActivity(Document):
    """How many instances ended on a host on a day."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "host_activity",
        [["site", "time"], {"fields": ["time"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = StringField(primary_key=True)
    site = StringField(required=True)
    hostname = StringField(required=True)
    time = DateTimeField(required=True)
    Done = LongField()
    Failed = LongField()
    Terminated = LongField()


class HostStreak(Document):
    """How many attempts failed quickly and in a row on a host, since when, and those of which jobs."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "host_streak",
        [["site", "-failed"], ["site", "done_at"], {"fields": ["last"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = StringField(primary_key=True)
    site = StringField(required=True)
    hostname = StringField(required=True)
    failed = LongField(default=0)
    jobs = ListField(ObjectIdField())
    since = DateTimeField(required=True)
    last = DateTimeField(required=True)
    done_at = DateTimeField()


class Distribution(Document):
    """What the attempts of a job used: numbers by bin."""

    meta: ClassVar[dict[str, Any]] = _meta("distribution", [], inheritance=False)
    id = ObjectIdField(primary_key=True)
    cpu = DictField()
    memory = DictField()
    wall = DictField()
    cpu_seconds = LongField()
    wall_seconds = LongField()
    events = LongField()
    cpu_max = FloatField()
    mem_max = FloatField()


class Snapshot(Document):
    """How many instances of each site were in which status at a time."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "snapshot",
        [["hourly", "id"], {"fields": ["time"], "expireAfterSeconds": STATISTICS_SECONDS}],
        inheritance=False,
    )
    id = DateTimeField(primary_key=True)
    time = DateTimeField(required=True)
    hourly = BooleanField(required=True)
    sites = ListField(DictField())


class DataFile(Document):
    """A file in the data catalogue."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "data_file",
        [
            {"fields": ["site", "filename"], "unique": True},
            ["site", "status", "filetype", "-created_at"],
            ["site", "-created_at", "-id"],
            ["status", "-created_at", "-id"],
            ["-created_at", "-id"],
            ["filename", "site"],
        ],
    )
    filename = StringField(required=True)
    site = StringField(required=True)
    status = StringField(required=True)
    filetype = StringField()
    created_at = DateTimeField(required=True)
    last_update = DateTimeField()


class Audit(Document):
    """Who changed what: ``before`` and ``after`` hold the fields that did change."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "audit",
        [
            ["-time", "-id"],
            ["who", "-time", "-id"],
            ["action", "-time", "-id"],
            ["target", "-time", "-id"],
        ],
        inheritance=False,
    )
    time = DateTimeField(required=True)
    who = StringField(required=True)
    role = StringField(required=True)
    address = StringField()
    action = StringField(required=True)
    target = StringField(required=True)
    before = DictField()
    after = DictField()


class FailedTries(Document):
    """How often a credential was wrong, by user name or address."""

    meta: ClassVar[dict[str, Any]] = _meta(
        "failed_tries", [{"fields": ["until"], "expireAfterSeconds": 0}], inheritance=False
    )
    id = StringField(primary_key=True)
    number = LongField(required=True)
    until = DateTimeField(required=True)


DOCUMENTS: tuple[type[Document], ...] = (
    Job, JobInstance, InstanceCount, Claim, Credential, User, Login, Setting, Maintenance, HeartBeat, Agent,
    AgentHistory, Activity, Failure, HostActivity, HostStreak, Distribution, Snapshot, DataFile, CreationRequest,
    Audit, FailedTries,
)  # fmt: skip
