"""What is drawn and ranked: work over time, failures, sites, hosts, and how a job does."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from flask import Blueprint, current_app

from DmpWorkflow.core.database import (
    activity,
    clock,
    distributions,
    failing,
    heartbeats,
    jobs,
    listing,
    progress,
    site_health,
    snapshots,
)
from DmpWorkflow.core.database.clock import iso
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import FINAL, MajorStatus
from DmpWorkflow.frontend.access import Right, check_site, database, own_site, requires, sees
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.parameters import parse
from DmpWorkflow.frontend.shared import shared

blueprint = Blueprint("statistics", __name__, url_prefix="/statistics")

SPANS = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}
ENDS = (MajorStatus.DONE, MajorStatus.FAILED, MajorStatus.TERMINATED)
SHARED_SECONDS = 4.0


def visible_sites(site: str = "") -> tuple[str, ...]:
    """Return the sites that the reader may see: all that are configured, or the one asked for; checks it."""
    chosen = site or own_site()
    if chosen:
        check_site(chosen)
    return (chosen,) if chosen else configured_sites()


def configured_sites() -> tuple[str, ...]:
    """Return the sites that the server's configuration names."""
    names: tuple[str, ...] = current_app.config["DAMPE_SETTINGS"].jobdb.batch_sites
    return names


@blueprint.get("/work/")
@requires(Right.READ)
def work() -> dict[str, Any]:
    """Return how many instances were in which status, over a day, a week or a month."""
    given = parse(schemas.Span)
    return {"result": "ok"} | _work(database(), visible_sites(given.site), given.span)


@shared(SHARED_SECONDS)
def _work(database: Database, sites: tuple[str, ...], span: str) -> dict[str, Any]:
    taken = snapshots.since(database, clock.now() - SPANS[span], set(sites), hourly=span != "day")
    statuses = [str(status) for status in MajorStatus if status not in FINAL]
    return _bounds(clock.now() - SPANS[span]) | {
        "times": [_seconds(one["time"]) for one in taken],
        "series": [_series(status, [one["counts"].get(status, 0) for one in taken]) for status in statuses],
    }


@blueprint.get("/ends/")
@requires(Right.READ)
def ends() -> dict[str, Any]:
    """Return how many instances ended per hour, over a day, a week or a month."""
    given = parse(schemas.Span)
    scopes = tuple(activity.of_site(site) for site in visible_sites(given.site))
    return {"result": "ok"} | ends_chart(database(), scopes, given.span)


@shared(SHARED_SECONDS)
def ends_chart(database: Database, scopes: tuple[str, ...], span: str) -> dict[str, Any]:
    """Return the chart of what ended in these scopes, hour by hour, also where nothing did."""
    now = clock.now()
    begin = (now - SPANS[span]).replace(minute=0, second=0, microsecond=0)
    found = {hour["time"]: hour for hour in activity.hours(database, scopes, begin)}
    times = [begin + number * activity.HOUR for number in range(int((now - begin) / activity.HOUR) + 1)]
    return _bounds(begin) | {
        "times": [_seconds(time) for time in times],
        "series": [_series(status, [found.get(time, {}).get(status, 0) for time in times]) for status in ENDS],
    }


@shared(SHARED_SECONDS)
def ended_in_a_day(database: Database, sites: tuple[str, ...]) -> dict[str, int]:
    """Return how many instances ended within the last 24 hours, by status."""
    hours = activity.hours(database, [activity.of_site(site) for site in sites], clock.now() - activity.DAY)
    return {str(status): sum(hour.get(str(status), 0) for hour in hours) for status in ENDS}


@blueprint.get("/failures/")
@requires(Right.READ)
def failures() -> dict[str, Any]:
    """Return the most frequent failures of the last day, by site and minor status."""
    return {"result": "ok", "failures": frequent_failures(database(), visible_sites(parse(schemas.SiteChoice).site))}


@shared(SHARED_SECONDS)
def frequent_failures(database: Database, sites: tuple[str, ...], most: int = 12) -> list[Document]:
    """Return the most frequent failures of the last day."""
    return activity.failure_reasons(database, sites, clock.now() - activity.DAY, most)


@blueprint.get("/sites/")
@requires(Right.READ)
def sites() -> dict[str, Any]:
    """Return how each site does, with a traffic light and its reason."""
    health = healths(database(), visible_sites(parse(schemas.SiteChoice).site))
    return {"result": "ok", "sites": [_plain(one) for one in health]}


@shared(SHARED_SECONDS)
def healths(database: Database, sites: tuple[str, ...]) -> list[site_health.SiteHealth]:
    """Return the health of these sites, those in trouble first."""
    return site_health.of_sites(database, sites)


def _plain(health: site_health.SiteHealth) -> Document:
    return {
        "site": health.site,
        "light": str(health.light),
        "reason": health.reason,
        "last_beat": iso(health.last_beat) if health.last_beat else None,
        "counts": {str(status): number for status, number in health.counts.items()},
        "ended": health.ended,
        "failing": health.failing,
    }


@blueprint.get("/hosts/")
@requires(Right.READ)
def hosts() -> dict[str, Any]:
    """Return a site's hosts of the last two days, those that fail most first."""
    (site,) = visible_sites(parse(schemas.OneSite).site)
    return {"result": "ok", "hosts": site_hosts(database(), site)}


@shared(SHARED_SECONDS)
def site_hosts(database: Database, site: str, most: int = 50) -> list[Document]:
    """Return a site's hosts of yesterday and today, those that fail most first."""
    return activity.hosts(database, site, clock.now() - activity.DAY, most)


@blueprint.get("/agents/")
@requires(Right.READ)
def agents() -> dict[str, Any]:
    """Return the agents of the sites with their last heartbeat."""
    found = heartbeats.agents(database(), visible_sites(parse(schemas.SiteChoice).site))
    return {"result": "ok", "agents": [agent_row(agent) for agent in found]}


def agent_row(agent: Document) -> Document:
    """Return an agent as lists show it."""
    shown = {name: agent.get(name) for name in ("site", "agent", "hostname", "version", "problem", "holds")}
    return shown | {"last_beat": iso(agent["last_beat"])}


@blueprint.get("/beats/")
@requires(Right.READ)
def beats() -> dict[str, Any]:
    """Return how many instances the agents of a site held, over a day, a week or a month."""
    given = parse(schemas.SiteSpan)
    (site,) = visible_sites(given.site)
    found = heartbeats.history(database(), site, clock.now() - SPANS[given.span])
    times = sorted({beat["time"] for beat in found})
    names = sorted({beat["agent"] for beat in found})
    held = {(beat["time"], beat["agent"]): beat.get("holds", 0) for beat in found}
    series = [_series(name, [held.get((time, name)) for time in times]) for name in names]
    begin = _bounds(clock.now() - SPANS[given.span])
    return {"result": "ok", "times": [_seconds(time) for time in times], "series": series} | begin


@blueprint.get("/jobs/<slug>/progress/")
@requires(Right.READ)
def job_progress(slug: str) -> dict[str, Any]:
    """Return how far a job is, how fast it goes, when it will end at this pace, and how efficient it is."""
    job = _seen(slug)
    found = progress.of_jobs(database(), [job])[job]
    return {
        "result": "ok",
        "over": found.over,
        "total": found.total,
        "per_hour": found.per_hour,
        "expected_end": iso(found.expected_end) if found.expected_end else None,
        "events": found.events,
        "efficiency": distributions.of_job(database(), job)["efficiency"],
    }


@blueprint.get("/jobs/<slug>/instances/<int:number>/<any(cpu, memory):quantity>/")
@requires(Right.READ)
def instance_samples(slug: str, number: int, quantity: str) -> dict[str, Any]:
    """Return CPU seconds or MB of an instance over time, with its limit and the changes of its status."""
    found = listing.instance_detail(database(), _seen(slug), min(number, schemas.INT64))
    samples = {_moment(sample["time"]): sample["value"] for sample in found[quantity]}  # one for each time
    limit = found[{"cpu": "cpu_max", "memory": "mem_max"}[quantity]]
    times = sorted(samples)
    marks = [{"time": _moment(entry["update"]), "status": entry["status"]} for entry in found["status_history"]]
    seen = [*times, *(mark["time"] for mark in marks), _moment(found["last_update"])]
    return {
        "result": "ok",
        "begin": min(seen),
        "end": max(*seen, min(seen) + 60),  # a chart needs some width, also of a single sample
        "times": times,
        "series": [_series(quantity, [samples[time] for time in times], distributions.QUANTITIES[quantity])],
        "limits": [limit] if limit else [],
        "marks": marks,
    }


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@blueprint.get("/jobs/<slug>/ends/")
@requires(Right.READ)
def job_ends(slug: str) -> dict[str, Any]:
    """Return how many instances of a job ended per hour, over a day, a week or a month."""
    return {"result": "ok"} | ends_chart(database(), (activity.of_job(_seen(slug)),), parse(schemas.Span).span)


@blueprint.get("/jobs/<slug>/distribution/<any(cpu, memory, wall):quantity>/")
@requires(Right.READ)
def job_distribution(slug: str, quantity: str) -> dict[str, Any]:
    """Return the histogram of CPU seconds, peak MB or wall seconds of a job's attempts, with the limit."""
    found = distributions.of_job(database(), _seen(slug))
    limit = {"cpu": found["cpu_max"], "memory": found["mem_max"], "wall": None}[quantity]
    histogram = found[quantity]
    series = _series("attempts", histogram["values"], distributions.QUANTITIES[quantity])
    return {"result": "ok", "edges": histogram["edges"], "series": [series], "limits": [limit] if limit else []}


@blueprint.get("/jobs/<slug>/failures/<any(minor_status, hostname, last_line):by>/")
@requires(Right.READ)
def job_failures(slug: str, by: str) -> dict[str, Any]:
    """Return how a job's failures (at most the last 5000) fall into groups."""
    return {"result": "ok", "groups": failing.groups(database(), _seen(slug), by)}


def _seen(slug: str) -> ObjectId:
    job = jobs.by_slug(database(), slug)
    sees(job)
    found: ObjectId = job["_id"]
    return found


def _series(name: str, values: Sequence[float | None], unit: str = "") -> Document:
    return {"name": str(name), "unit": unit, "values": list(values)}


def _bounds(begin: datetime) -> Document:
    """Return where a chart begins and ends, whatever there is in it."""
    return {"begin": _seconds(begin), "end": _seconds(clock.now())}


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
