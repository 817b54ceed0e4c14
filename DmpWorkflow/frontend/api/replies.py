"""What replies look like; the description of the API is made of these, and the fuzzer holds the server to them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Counts = dict[str, int]


class Reply(BaseModel):
    """Every reply of a request that succeeded."""

    model_config = ConfigDict(extra="forbid")

    result: Literal["ok"]


class Error(BaseModel):
    """Every reply of a request that did not; ``stop`` tells a payload that its attempt is over."""

    result: Literal["nok"]
    error: str
    jobID: str | None = None
    stop: bool | None = None


class Health(BaseModel):
    """GET /health."""

    result: Literal["ok", "nok"]
    version: str
    database: Literal["ok", "down"]
    auth: Literal["required", "optional", "off"]
    error: str | None = None


class WhoAmI(Reply):
    """GET /whoami/."""

    role: str
    site: str | None
    name: str


class MadeJob(BaseModel):
    """A job that a submission made, or added to."""

    jobID: str
    slug: str
    title: str
    type: str
    site: str
    first: int | None
    last: int | None


class MadeJobs(Reply):
    """POST /job/."""

    jobID: str
    jobs: list[MadeJob]
    warnings: list[str]


class Problem(BaseModel):
    """What is wrong with a submission, and in which line of its file."""

    line: int | None
    text: str


class JobName(BaseModel):
    """Which job."""

    slug: str
    title: str


class StagedFile(BaseModel):
    """A file to stage."""

    source: str
    target: str
    file_type: str


class NamedValue(BaseModel):
    """A variable of a payload."""

    name: str
    value: str


class Preview(BaseModel):
    """What a job would be, and what the payload of its first new instance would see."""

    title: str
    type: str
    site: str
    release: str
    priority: int
    slug: str | None = Field(description="of the job that is there already")
    parents: list[JobName]
    instances: int
    first: int
    executable: str
    input_files: list[StagedFile]
    output_files: list[StagedFile]
    variables: list[NamedValue]
    automatic: list[NamedValue]


class CheckedJobs(Reply):
    """POST /job/check/."""

    valid: bool
    problems: list[Problem]
    warnings: list[str]
    jobs: list[Preview]


class MadeInstances(Reply):
    """POST /jobInstances/."""

    jobID: str
    first: int | None
    last: int | None


class JobRow(BaseModel):
    """A job in a list."""

    id: str
    slug: str
    title: str
    type: str
    site: str
    release: str
    priority: int
    created_at: str
    counts: Counts
    owner: str
    tags: list[str]
    archived: bool
    parent_count: int
    retries: int
    retry_on: list[str]
    lost_after: int | None = Field(description="seconds of silence; null: as the server's settings say")
    paused: str = Field(description="why; empty: it is not")


class JobDetail(JobRow):
    """A job with its XML."""

    body: str
    parents: list[str]
    allotted: int


class Jobs(Reply):
    """GET /job/."""

    jobs: list[JobRow]
    next: str | None
    matching: int


class OneJob(Reply):
    """GET /job/<slug>/."""

    job: JobDetail


class ExportedInstance(BaseModel):
    """An instance in an exported file."""

    slug: str
    number: int
    status: str
    minor_status: str
    attempt: int
    hostname: str | None
    batch_id: str | None
    created_at: str
    last_update: str
    cpu_peak: float | None
    memory_peak: float | None
    Nevents: int | None


class Removed(Reply):
    """DELETE /job/<slug>/: how many instances went with it."""

    removed: int


class InstanceRow(BaseModel):
    """An instance in a list."""

    instance_id: int
    status: str
    minor_status: str
    attempt: int
    hostname: str | None
    batch_id: str | None
    last_update: str
    cpu_peak: float | None
    memory_peak: float | None
    last_line: str | None
    stalled_since: str | None = Field(description="nothing was heard of it for a while")
    not_before: str | None = Field(description="a retry waits until then")


class Instances(Reply):
    """GET /job/<slug>/instances/."""

    instances: list[InstanceRow]
    next: int | str | None


class HistoryEntry(BaseModel):
    """A change of status."""

    status: str
    minor_status: str | None
    update: str


class Sample(BaseModel):
    """A value at a time: CPU seconds, or MB."""

    time: str
    value: float


class InstanceDetail(InstanceRow):
    """All that is known of an instance."""

    created_at: str
    overrides: str
    status_history: list[HistoryEntry]
    attempts: list[dict[str, Any]]
    cpu: list[Sample]
    memory: list[Sample]
    cpu_max: float | None
    mem_max: float | None
    Nevents: int | None
    log: str


class OneInstance(Reply):
    """GET /job/<slug>/instances/<n>/."""

    instance: InstanceDetail


class RolledBack(Reply):
    """POST /rollback/."""

    rolled_back: int


class Reported(Reply):
    """POST /jobstatus/."""

    outcome: Literal["applied", "repeated", "late"]


class ReportResult(BaseModel):
    """What became of one report of many."""

    result: Literal["ok", "nok"]
    outcome: Literal["applied", "repeated", "late"] | None = None
    status: int | None = None
    error: str | None = None
    stop: bool | None = None


class ReportResults(Reply):
    """POST /jobstatusBulk/: a result for each report, in their order; or ``njobs`` for the fork's form."""

    results: list[ReportResult] | None = None
    njobs: int | None = None


class Killed(Reply):
    """POST /kill/: how many ended at once, and how many agents are told to end."""

    ended: int
    ordered: int


class InstanceName(BaseModel):
    """Which instance."""

    instanceId: int
    jobId: str


class FoundInstances(Reply):
    """GET /jobstatus/."""

    jobs: list[InstanceName]


class ClaimedVariable(BaseModel):
    """A variable, resolved as far as the server can."""

    name: str
    value: str
    var_type: str


class ClaimedDefinition(BaseModel):
    """What the instances of a claim have in common."""

    job_id: str
    slug: str
    title: str
    type: str
    release: str
    site: str
    attributes: dict[str, str]
    executable: str
    script: str
    input_files: list[StagedFile]
    output_files: list[StagedFile]
    variables: list[ClaimedVariable]


class ClaimedInstance(BaseModel):
    """An attempt that was handed out; ``token`` is good for its reports only."""

    job_id: str
    instance_id: int
    attempt: int
    token: str
    definition: str = Field(description="key in definitions")
    lease_expires: str | None


class Claimed(Reply):
    """POST /newjobs/."""

    definitions: dict[str, ClaimedDefinition]
    instances: list[ClaimedInstance]


class OldClaimed(Reply):
    """GET /newjobs/: JSON texts, or a number (fastQuery)."""

    jobs: list[str] | int


class Answered(BaseModel):
    """What an agent is to do with some instances that it holds."""

    answer: Literal["adopt", "over", "kill", "cancel", "unknown"]
    job_id: str
    attempt: int
    instances: list[int]


class Answers(Reply):
    """POST /agents/heartbeat/: answers for what does not only go on."""

    answers: list[Answered]


class Beats(Reply):
    """GET /testDB/."""

    beats: list[str]


class WatchedInstance(BaseModel):
    """A running instance and its limits."""

    t_id: str
    inst_id: int
    batchId: str | None
    major_status: str
    max_cpu: float | None
    max_mem: float | None


class Watched(Reply):
    """GET /watchdog/."""

    jobs: list[WatchedInstance]


class ChangedFiles(Reply):
    """POST /datacat/."""

    docId: list[str]


class Files(Reply):
    """GET /datacat/."""

    files: list[str]


class FileRow(BaseModel):
    """A file in the data catalogue."""

    id: str
    filename: str
    site: str
    filetype: str
    status: str
    created_at: str
    last_update: str


class FileRows(Reply):
    """GET /datacat/files/."""

    files: list[FileRow]
    next: str | None
