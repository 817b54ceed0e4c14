"""What charts and rankings are made of, against what happened."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.core.database import (
    activity,
    claims,
    clock,
    counts,
    creation,
    distributions,
    failing,
    heartbeats,
    jobs,
    site_health,
    snapshots,
)
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.site_health import Light
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from tests.served import Served

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Set the clock of the database operations."""

    def set_clock(time: datetime) -> None:
        monkeypatch.setattr(clock, "now", lambda: time)

    set_clock(NOW)
    return set_clock


def made(database: Database, number: int, site: str = "local", title: str = "sim") -> ObjectId:
    job: ObjectId = jobs.submit(database, jobs.NewJob(title, "User", site, "<Jobs/>"))["_id"]
    creation.create_instances(database, job, number)
    return job


def run(database: Database, job: ObjectId, number: int, status: MajorStatus, **values: Any) -> None:
    """Run an instance of a claimed job to its end."""
    apply_report(database, StatusReport(job, number, Report(MajorStatus.RUNNING, 1, 1), {"hostname": "wn1"}))
    apply_report(database, StatusReport(job, number, Report(status, 1, 2), values))


def claim(database: Database, number: int, site: str = "local") -> None:
    claims.claim(database, claims.ClaimRequest(site, "agent", uuid.uuid4().hex, number, timedelta(hours=1)))


def test_starts_and_ends_are_counted_by_hour_and_scope(database: Database, at: Callable[[datetime], None]) -> None:
    job = made(database, 6)
    claim(database, 6)
    run(database, job, 1, MajorStatus.DONE)
    run(database, job, 2, MajorStatus.FAILED, minor_status="ApplicationExitCode3")
    at(NOW + timedelta(hours=2))
    run(database, job, 3, MajorStatus.DONE)
    kill(database, job, [4, 5, 6])
    apply_report(database, StatusReport(job, 3, Report(MajorStatus.DONE, 1, 2)))  # repeated: changes nothing
    for scope in (activity.of_site("local"), activity.of_job(job)):
        first, second = activity.hours(database, [scope], NOW - timedelta(days=1))
        assert first == {"time": NOW.replace(minute=0), "Running": 2, "Done": 1, "Failed": 1, "Terminated": 0}
        assert (second["Running"], second["Done"], second["Terminated"]) == (1, 1, 3)
    assert activity.hours(database, [activity.of_site("elsewhere")], NOW - timedelta(days=1)) == []
    assert activity.failure_reasons(database, ["local"], NOW - timedelta(hours=1), 10) == [
        {"site": "local", "status": "Terminated", "minor_status": "KilledByUser", "number": 3},
        {"site": "local", "status": "Failed", "minor_status": "ApplicationExitCode3", "number": 1},
    ]


def test_the_rate_counts_from_the_first_end(database: Database, at: Callable[[datetime], None]) -> None:
    job, other = made(database, 8), made(database, 1, title="other")
    claim(database, 9)
    for number in range(1, 7):
        run(database, job, number, MajorStatus.DONE)
    at(NOW + timedelta(hours=2, minutes=30))  # 3 hours since the hour began in which the first one ended
    assert activity.ended_per_hour(database, [job, other]) == {job: 2.0}


def test_hosts_that_fail_come_first_but_not_for_one_failure(database: Database) -> None:
    hour = [
        activity.Change(ObjectId(), "local", MajorStatus.FAILED, "x", "hole", 50),
        activity.Change(ObjectId(), "local", MajorStatus.DONE, "", "hole", 1),
        activity.Change(ObjectId(), "local", MajorStatus.FAILED, "x", "new", 1),
        activity.Change(ObjectId(), "local", MajorStatus.DONE, "", "good", 500),
        activity.Change(ObjectId(), "local", MajorStatus.FAILED, "x", "good", 5),
    ]
    activity.note(database, hour)
    found = activity.hosts(database, "local", clock.now() - activity.DAY, 10)
    assert [row["hostname"] for row in found] == ["hole", "new", "good"]
    assert (found[0]["failed"], found[0]["done"], round(found[0]["rate"], 2)) == (50, 1, 0.98)
    assert found[1]["at_least"] < found[0]["at_least"]


def test_what_attempts_used_is_distributed_with_limits(database: Database, at: Callable[[datetime], None]) -> None:
    job = made(database, 3)
    claim(database, 3)
    for number, cpu in ((1, 100.0), (2, 110.0), (3, 10_000.0)):
        at(NOW)
        start = {"cpu_max": 86400.0, "mem_max": 4000.0, "hostname": "wn1"}
        apply_report(database, StatusReport(job, number, Report(MajorStatus.RUNNING, 1, 1), start))
        apply_report(
            database, StatusReport(job, number, Report(MajorStatus.RUNNING, 1, 2), {"cpu": cpu, "memory": 9.0})
        )
        at(NOW + timedelta(seconds=2 * cpu))
        apply_report(database, StatusReport(job, number, Report(MajorStatus.DONE, 1, 3)))
    found = distributions.of_job(database, job)
    assert (found["cpu_max"], found["mem_max"], found["efficiency"]) == (86400.0, 4000.0, 0.5)
    cpu = found["cpu"]
    assert sum(cpu["values"]) == 3 and cpu["values"][0] == 2 and cpu["values"][-1] == 1
    assert len(cpu["edges"]) == len(cpu["values"]) + 1
    assert cpu["edges"][0] <= 100 <= 110 < cpu["edges"][1] and cpu["edges"][-2] <= 10_000 < cpu["edges"][-1]
    assert sum(found["memory"]["values"]) == sum(found["wall"]["values"]) == 3


def test_failures_of_a_job_fall_into_groups(database: Database) -> None:
    job = made(database, 5)
    claim(database, 5)
    for number in (1, 2, 3):
        run(database, job, number, MajorStatus.FAILED, minor_status="Crash", log=f"run {number}\nno such file\n\n")
    run(database, job, 4, MajorStatus.TERMINATED, minor_status="ExceedingMemory", log="eaten")
    assert failing.groups(database, job, "last_line") == [
        {"value": "no such file", "number": 3, "example": 3},
        {"value": "eaten", "number": 1, "example": 4},
    ]
    assert [group["number"] for group in failing.groups(database, job, "minor_status")] == [3, 1]
    assert failing.groups(database, job, "hostname") == [{"value": "wn1", "number": 4, "example": 4}]


def test_snapshots_equal_the_counters_and_are_taken_once(database: Database, at: Callable[[datetime], None]) -> None:
    made(database, 4)
    clockwork = snapshots.Clockwork()
    for minute in (31, 44, 46):
        at(NOW.replace(minute=minute))
        snapshots.take_when_due(database, clockwork)
        snapshots.take_when_due(database, snapshots.Clockwork())  # another process
    taken = snapshots.since(database, NOW - timedelta(days=1), {"local"}, hourly=False)
    assert [one["time"] for one in taken] == [NOW.replace(minute=30), NOW.replace(minute=45)]
    now = {str(status): number for status, number in counts.of_site(database, "local").items()}
    assert taken[-1]["counts"] == now and now["New"] == 4
    assert len(snapshots.since(database, NOW - timedelta(days=1), {"local"}, hourly=True)) == 1
    assert snapshots.since(database, NOW - timedelta(days=1), {"other"}, hourly=False)[0]["counts"] == {}


def test_the_traffic_light_says_why(database: Database, at: Callable[[datetime], None]) -> None:
    def light(site: str) -> tuple[Light, str]:
        (health,) = site_health.of_sites(database, [site])
        return health.light, health.reason

    def beat(problem: str | None = None) -> None:
        told = {"agent": "a", "hostname": "ui", "version": "3", "problem": problem}
        heartbeats.agent_beat(database, told, "local", [])

    assert light("local") == (Light.GREY, "no agent yet")
    job = made(database, 20)
    assert light("local")[0] is Light.RED
    beat()
    assert light("local") == (Light.GREEN, "works")
    beat("squeue: no answer within 60 s")
    assert light("local") == (Light.RED, "its agent complains: squeue: no answer within 60 s")
    beat()
    claim(database, 20)
    for number in range(1, 11):
        run(database, job, number, MajorStatus.FAILED if number <= 3 else MajorStatus.DONE)
    assert light("local") == (Light.AMBER, "30% fail")
    for number in range(11, 18):
        run(database, job, number, MajorStatus.FAILED)
    assert light("local") == (Light.RED, "59% fail")
    at(NOW + timedelta(hours=7))
    assert light("local") == (Light.RED, "its agent is silent for 7 hours")
    order = [health.site for health in site_health.of_sites(database, ["CNAF", "local"])]
    assert order == ["local", "CNAF"]


def get(served: Served, path: str, token: str) -> requests.Response:
    return requests.get(f"{served.url}/statistics/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)


@pytest.mark.parametrize("path", ["work/", "ends/?span=week", "failures/", "sites/", "hosts/?site=local", "agents/"])
def test_a_sites_token_sees_its_own_statistics_only(served: Served, path: str) -> None:
    assert get(served, path, served.read_token).json()["result"] == "ok"
    own = get(served, path, served.site_token)
    assert own.status_code == 200
    assert not {row["site"] for row in own.json().get("sites", own.json().get("agents", []))} - {"local"}
    name, mark = path.split("/")[0], "?site=CNAF"
    assert get(served, f"{name}/{mark}", served.site_token).status_code == 403
    assert requests.get(f"{served.url}/statistics/{path}", timeout=60).status_code == 401


def test_charts_have_a_value_for_every_time(served: Served) -> None:
    database = served.database
    job = jobs.by_id(database, made(database, 2, title="drawn"))
    claim(database, 1000)
    run(database, job["_id"], 1, MajorStatus.DONE, cpu=10, memory=20)
    run(database, job["_id"], 2, MajorStatus.FAILED, minor_status="Crash", log="bad luck")
    chart = get(served, f"jobs/{job['slug']}/ends/", served.read_token).json()
    assert len(chart["times"]) in (24, 25)
    assert {one["name"]: sum(one["values"]) for one in chart["series"]} == {"Done": 1, "Failed": 1, "Terminated": 0}
    assert all(len(one["values"]) == len(chart["times"]) for one in chart["series"])
    histogram = get(served, f"jobs/{job['slug']}/distribution/cpu/", served.read_token).json()
    assert sum(histogram["series"][0]["values"]) == 1 and histogram["series"][0]["unit"] == "s"
    groups = get(served, f"jobs/{job['slug']}/failures/last_line/", served.read_token).json()["groups"]
    assert groups == [{"value": "bad luck", "number": 1, "example": 2}]
    assert get(served, f"jobs/{job['slug']}/failures/body/", served.read_token).status_code == 404


def test_many_viewers_of_a_page_cost_one_of_them(served: Served) -> None:
    """All refreshes are answered, and few of them by a question to the database."""
    database = served.database.jobs.database
    made(served.database, 3, title="looked-at")
    session = requests.Session()
    session.headers.update({"Authorization": f"Bearer {served.read_token}", "HX-Request": "true"})
    # between two uses of the token that are noted
    assert session.get(f"{served.url}/jobs/?text=nothing", timeout=60).ok
    database.command("profile", 2)
    try:
        replies = [session.get(f"{served.url}/jobs/?text=looked", timeout=60) for _ in range(40)]
        asked = database["system.profile"].count_documents({"ns": f"{database.name}.job", "op": "query"})
    finally:
        database.command("profile", 0)
    assert all("looked-at" in reply.text for reply in replies)
    # the list and the number of matches: some rounds, if forty requests take longer than an answer is good for
    assert 0 < asked < 40


def test_a_chart_of_one_sample_has_some_width(served: Served) -> None:
    job = jobs.by_id(served.database, made(served.database, 1, title="sampled"))
    claim(served.database, 1000)
    run(served.database, job["_id"], 1, MajorStatus.DONE, cpu=10, memory=20)
    chart = get(served, f"jobs/{job['slug']}/instances/1/cpu/", served.read_token).json()
    assert chart["begin"] <= chart["times"][0] <= chart["end"] and chart["end"] - chart["begin"] >= 60
    assert [mark["status"] for mark in chart["marks"]][-1] == "Done"
    assert chart["series"][0]["values"] == [10]
