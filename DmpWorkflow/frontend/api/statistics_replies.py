"""What replies with statistics look like."""

from typing import Literal

from pydantic import BaseModel

from DmpWorkflow.frontend.api.replies import Counts, Reply


class Series(BaseModel):
    """Values to draw, one for each time or bin."""

    name: str
    unit: str
    values: list[float | None]


class Chart(Reply):
    """GET /statistics/...: series over times, in seconds since 1970."""

    begin: float
    end: float
    times: list[float]
    series: list[Series]


class Mark(BaseModel):
    """A change of status."""

    time: float
    status: str


class SampleChart(Chart):
    """GET /statistics/jobs/<slug>/instances/<n>/<quantity>/: samples with their limit."""

    limits: list[float]
    marks: list[Mark]


class JobProgress(Reply):
    """GET /statistics/jobs/<slug>/progress/; ``efficiency`` is CPU time over wall time."""

    over: int
    total: int
    per_hour: float
    expected_end: str | None
    events: int
    efficiency: float | None


class Histogram(Reply):
    """GET /statistics/jobs/<slug>/distribution/<quantity>/: numbers of attempts between the edges of bins."""

    edges: list[float]
    series: list[Series]
    limits: list[float]


class FailureReason(BaseModel):
    """A kind of failure, and how often it happened."""

    site: str
    status: str
    minor_status: str
    number: int


class FailureReasons(Reply):
    """GET /statistics/failures/."""

    failures: list[FailureReason]


class SiteHealth(BaseModel):
    """How a site does; ``failing`` is the failing fraction of what ended within the last six hours."""

    site: str
    light: Literal["green", "amber", "red", "grey"]
    reason: str
    last_beat: str | None
    counts: Counts
    ended: int
    failing: float | None


class SiteHealths(Reply):
    """GET /statistics/sites/."""

    sites: list[SiteHealth]


class HostRow(BaseModel):
    """What ended on a host; ``at_least`` is the lower end of its failing fraction, at 95 %."""

    hostname: str
    done: int
    failed: int
    terminated: int
    rate: float
    at_least: float


class Hosts(Reply):
    """GET /statistics/hosts/."""

    hosts: list[HostRow]


class AgentRow(BaseModel):
    """The last that was heard of an agent."""

    site: str
    agent: str
    hostname: str | None
    version: str | None
    problem: str | None
    holds: int | None
    last_beat: str


class Agents(Reply):
    """GET /statistics/agents/."""

    agents: list[AgentRow]


class FailureGroup(BaseModel):
    """Failures of a job that have something in common; ``example`` is the number of one of them."""

    value: str
    number: int
    example: int


class FailureGroups(Reply):
    """GET /statistics/jobs/<slug>/failures/<by>/."""

    groups: list[FailureGroup]
