"""What requests look like. Old clients send these as forms, where every value is a text."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from DmpWorkflow.core.database import audit_search, data_catalogue
from DmpWorkflow.core.database.creation import MOST_AT_ONCE
from DmpWorkflow.core.database.instance_search import InstanceFilter, statuses
from DmpWorkflow.core.database.job_search import JobFilter
from DmpWorkflow.core.database.status_report import LOG_LIMIT
from DmpWorkflow.core.retries import MOST_RETRIES
from DmpWorkflow.core.roles import split_role
from DmpWorkflow.utils.errors import InvalidInput

INT64 = 2**63 - 1
MOST_CHOSEN = 100_000  # instances named one by one
MOST_HELD = 50_000  # instances, and jobs, that one heartbeat names
ID = r"^[0-9a-fA-F]{24}$"


def _none(value: Any) -> Any:
    """Old clients write str(None) for nothing."""
    return None if value in ("", "None") else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _utc(value: datetime) -> datetime:
    """Take a time without a zone for UTC."""
    try:
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise ValueError("this time is out of bounds") from None


def _not_truth(value: Any) -> Any:
    """Pydantic takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("expected a number, and not true or false")
    return value


def _whole_letters(value: Any) -> Any:
    """JSON may hold halves of characters, which no database stores; no report is refused for its log."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


NoTruth = BeforeValidator(_not_truth)
Id = Annotated[str, StringConstraints(pattern=ID)]
Number = Annotated[int, Field(ge=0, le=INT64), NoTruth]
Priority = Annotated[int, Field(ge=-(2**31), le=2**31 - 1), NoTruth]
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
OptionalNumber = Annotated[Number | None, BeforeValidator(_none)]
OptionalText = Annotated[Text | None, BeforeValidator(_text)]
OptionalTime = Annotated[Annotated[datetime, AfterValidator(_utc)] | None, BeforeValidator(_none)]
# Sums of these fit into 64 bits: a million CPUs of a year each are not 1e14 seconds.
MOST_AMOUNT = 10**12
Amount = Annotated[float, Field(ge=0, le=MOST_AMOUNT, allow_inf_nan=False), NoTruth]
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False), NoTruth]
Events = Annotated[Annotated[int, Field(ge=0, le=MOST_AMOUNT), NoTruth] | None, BeforeValidator(_none)]


class Strict(BaseModel):
    """A request of a new client: what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class NewJob(BaseModel):
    """POST /job/ and POST /job/check/, the fields beside the file."""

    taskname: Text = ""
    t_type: Text = ""
    site: Text = ""
    n_instances: Annotated[int, Field(ge=0, le=MOST_AT_ONCE), NoTruth] = 0
    override_dict: Any = None
    replace: bool = False
    priority: Annotated[Priority | None, BeforeValidator(_none)] = None


class JobChange(Strict):
    """PATCH /job/<slug>/: what is not given stays."""

    priority: Priority | None = None
    tags: Annotated[list[Text], Field(max_length=100)] | None = None
    archived: bool | None = None
    retries: Annotated[int, Field(ge=0, le=MOST_RETRIES)] | None = None
    retry_on: Annotated[list[Text], Field(max_length=100)] | None = None
    lost_after: (
        Annotated[int, Field(ge=0, le=99_999 * 3600, description="seconds; 0: as the settings say")] | None
    ) = None
    paused: bool | None = None


class Removal(Strict):
    """DELETE /job/<slug>/: ``confirm`` is the title of the job."""

    confirm: Text


class NewClone(Strict):
    """POST /job/<slug>/clone/."""

    title: Annotated[Text, Field(min_length=1)]
    n_instances: Annotated[int, Field(ge=0, le=MOST_AT_ONCE), NoTruth] = 0


class SubmitForm(NewJob):
    """The form of the page that submits; its file is apart."""

    xml: str = ""
    n_instances: Annotated[int, Field(ge=0, le=MOST_AT_ONCE), NoTruth, BeforeValidator(lambda value: value or 0)] = 0
    depends: Text = ""
    variables: Annotated[str, StringConstraints(max_length=64 * 1024)] = ""


class NewInstances(BaseModel):
    """POST /jobInstances/."""

    taskname: Text
    tasktype: Text = ""
    site: Text = ""
    n_instances: Annotated[int, Field(ge=0, le=MOST_AT_ONCE), NoTruth] = 1
    override_dict: Any = None
    instanceId: OptionalNumber = None


class StatusArguments(BaseModel):
    """One report, or a roll-back (major_status "New")."""

    t_id: Id
    inst_id: Number
    major_status: Text
    minor_status: OptionalText = None
    attempt: Number | None = None
    sequence: Number | None = None
    runner: Text | None = None
    site: OptionalText = None
    hostname: OptionalText = None
    batchId: OptionalText = None
    cpu: Amount | None = None
    memory: Amount | None = None
    cpu_max: Bound | None = None
    mem_max: Bound | None = None
    Nevents: Events = None
    log: Annotated[str, Field(max_length=16 * LOG_LIMIT), BeforeValidator(_whole_letters)] | None = None
    body: Any = None
    lost: bool = False
    created_at: Any = None
    status_history: Any = None


class BulkReports(Strict):
    """POST /jobstatusBulk/ as JSON."""

    reports: Annotated[list[dict[str, Any]], Field(max_length=1000)]


class BulkItem(BaseModel):
    """One item of the fork's bulk report."""

    t_id: Id
    instanceId: Number


class StatusQuery(BaseModel):
    """GET /jobstatus/."""

    title: Text
    type: Text = "Generation"
    stat: Text = "Any"
    inst: OptionalNumber = None
    n_min: OptionalNumber = None
    n_max: OptionalNumber = None


class OldClaim(BaseModel):
    """GET /newjobs/."""

    site: Text = "local"
    limit: Annotated[int, Field(ge=0, le=10_000)] = 1000
    status: Text = "New"
    status_list: Text = ""
    fastQuery: Text = ""
    type: Text = ""
    pilot: Text = ""


class Claim(Strict):
    """POST /newjobs/."""

    site: Text
    limit: Annotated[int, Field(ge=1, le=1000)]
    agent: Annotated[Text, Field(min_length=1)]
    request_id: Annotated[Text, Field(min_length=8)]
    lease: Annotated[int, Field(ge=60, le=86400, description="seconds")] = 3600


class Hold(Strict):
    """Instances of a job that an agent has in its batch system, all with the same number of attempt."""

    job_id: Id
    attempt: Number
    instances: Annotated[list[Number], Field(max_length=MOST_HELD)]


class AgentHeartbeat(Strict):
    """POST /agents/heartbeat/."""

    site: Text
    agent: Annotated[Text, Field(min_length=1)]
    hostname: Text
    version: Text
    problem: Text | None = None
    holds: Annotated[list[Hold], Field(max_length=MOST_HELD)] | None = None  # None: it could not find out


class Heartbeat(BaseModel):
    """POST /testDB/."""

    hostname: Text
    process: Text = "default"
    version: Text = ""
    timestamp: Any = None


class Limit(BaseModel):
    """GET /testDB/."""

    limit: Annotated[int, Field(ge=0, le=10_000)] = 1000


class InstanceChoice(BaseModel):
    """Which instances of a job: ``status`` may name several with commas; ``text`` is part of the log."""

    status: Text | None = None
    minor_status: Text = ""
    host: Text = ""
    n_min: OptionalNumber = None
    n_max: OptionalNumber = None
    text: Text = ""

    def chosen(self, status: str = "Any") -> InstanceFilter:
        """Return which instances are meant, in ``status`` if none was given."""
        return InstanceFilter(
            statuses=statuses(self.status or status),
            minor_status=self.minor_status,
            host=self.host,
            n_min=self.n_min,
            n_max=self.n_max,
            text=self.text,
        )


class ExportQuery(InstanceChoice):
    """GET /job/<slug>/export/."""

    format: Literal["csv", "json"] = "csv"


class RollBack(InstanceChoice, Strict):
    """POST /rollback/."""

    job: Text
    instances: Annotated[list[Number], Field(max_length=MOST_CHOSEN)] | None = None
    override_dict: dict[str, Any] | None = None


class Kill(InstanceChoice, Strict):
    """POST /kill/."""

    job: Text
    instances: Annotated[list[Number], Field(max_length=MOST_CHOSEN)] | None = None


class CatalogueChange(BaseModel):
    """POST /datacat/."""

    filename: Annotated[str, Field(min_length=1, max_length=1024 * 1024)]
    site: Text
    action: Text
    status: Text = "New"
    filetype: Text = "root"
    overwrite: bool = False


class CatalogueQuery(BaseModel):
    """GET /datacat/."""

    site: Text = ""
    status: Text = ""
    filetype: Text = ""
    limit: Annotated[int, Field(ge=0, le=100_000)] = 1000


class FileQuery(BaseModel):
    """GET /datacat/files/."""

    name: Text = ""
    site: Text = ""
    status: Text = ""
    filetype: Text = ""
    sort: Annotated[Literal["time", "name"], BeforeValidator(lambda value: value or "time")] = "time"
    after: Annotated[str, StringConstraints(max_length=16 * 1024)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100

    def as_query(self) -> data_catalogue.FileQuery:
        """Return which files are meant."""
        return data_catalogue.FileQuery(**self.model_dump(exclude={"after", "limit"}))


class FileSelection(Strict):
    """The files that are marked on a page, and what becomes of them."""

    file: Annotated[list[Id], Field(max_length=1000)] = []
    status: Literal["New", "Copied", "Orphaned"] = "New"
    confirm: Text = ""


class Site(BaseModel):
    """GET /watchdog/."""

    site: Text


class JobQuery(BaseModel):
    """GET /job/: ``before`` is the cursor of the last page, in any order; ``until`` itself is not meant."""

    title: Text = ""
    type: Text = ""
    site: Text = ""
    before: Text = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    text: Text = ""
    status: Text = ""
    owner: Text = ""
    tag: Text = ""
    archived: Literal["no", "yes", "any"] = "no"
    since: OptionalTime = None
    until: OptionalTime = None
    sort: Literal["created", "title", "site", "type", "progress", "failed", "total"] = "created"
    descending: bool = True

    def chosen(self, site: str) -> JobFilter:
        """Return which jobs are meant, of ``site`` if it is not empty."""
        return JobFilter(
            text=self.text,
            title=self.title,
            type=self.type,
            site=site,
            status=self.status,
            owner=self.owner,
            tag=self.tag,
            archived={"no": False, "yes": True, "any": None}[self.archived],
            since=self.since,
            until=self.until,
        )


class InstanceQuery(InstanceChoice):
    """GET /job/<slug>/instances/: ``after`` is the cursor of the last page, for the order "number" a number."""

    after: Text = ""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    sort: Literal["number", "last_update", "host", "attempt", "cpu_peak", "memory_peak"] = "number"
    descending: bool = False


class SiteChoice(BaseModel):
    """GET /statistics/..., of all sites or of one."""

    site: Text = ""


class Span(SiteChoice):
    """GET /statistics/..., over a time."""

    span: Literal["day", "week", "month"] = "day"


class OneSite(BaseModel):
    """GET /statistics/hosts/."""

    site: Annotated[Text, Field(min_length=1)]


class SiteSpan(OneSite):
    """GET /statistics/beats/."""

    span: Literal["day", "week", "month"] = "day"


Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Password = Annotated[str, Field(max_length=1024, json_schema_extra={"format": "password"})]


class NewAccount(Strict):
    """A token or a user; ``site`` for the role site, and no other. "site:CNAF" is the role site for that site."""

    name: Name
    role: Literal["admin", "operator", "submit", "read", "site"]
    site: Annotated[Text | None, BeforeValidator(_none)] = None

    @model_validator(mode="before")
    @classmethod
    def _split_role(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("role"), str):
            return given
        try:
            role, site = split_role(given["role"], _none(given.get("site")))
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return given | {"role": role, "site": site}


class NewToken(NewAccount):
    """POST /administration/tokens/; ``expires``: days from now, or a date as in 2027-01-31; empty for never."""

    expires: Annotated[Text, BeforeValidator(lambda value: "" if value is None else _text(value))] = ""


class NewUser(NewAccount):
    """POST /administration/users/."""

    password: Password


class Named(Strict):
    """Which token or user."""

    name: Text


class NewPassword(Named):
    """POST /administration/users/password/."""

    password: Password


class MaintenanceAction(Strict):
    """POST /administration/maintenance/."""

    action: Text
    dry_run: bool = False


class AuditQuery(BaseModel):
    """GET /administration/audit/: ``before`` is the cursor of the last page; ``until`` itself is not meant."""

    who: Text = ""
    action: Text = ""
    target: Text = ""
    since: OptionalTime = None
    until: OptionalTime = None
    before: Text = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100

    def chosen(self) -> audit_search.AuditQuery:
        """Return which rows are meant."""
        return audit_search.AuditQuery(**self.model_dump(exclude={"before", "limit"}))
