"""How each site does: a traffic light with its reason, made of heartbeats, counters and the last hours' ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from DmpWorkflow.core.database import activity, black_holes, clock, counts, heartbeats
from DmpWorkflow.core.database.black_holes import BlackHole
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.lifecycle import ACTIVE, MajorStatus

SILENT, MISSING = timedelta(minutes=15), timedelta(hours=1)  # since the last heartbeat: a cycle takes minutes at most
LOOK_BACK = timedelta(hours=6)
ENOUGH = 10  # ends, before their failing fraction means something
SOME, MANY = 0.2, 0.5  # failing fractions


class Light(StrEnum):
    """What the operator does about a site."""

    GREEN = "green"  # nothing
    AMBER = "amber"  # look when there is time
    RED = "red"  # look now
    GREY = "grey"  # nothing: the site has no work and no agent


@dataclass(frozen=True)
class SiteHealth:
    """A site now. ``failing`` is the fraction of what ended within the last hours; None if nothing did."""

    site: str
    light: Light
    reason: str
    last_beat: datetime | None
    counts: counts.Counts
    ended: int
    failing: float | None


def of_sites(database: Database, sites: Iterable[str]) -> list[SiteHealth]:
    """Return the health of these sites, those in trouble first; a constant number of queries."""
    names = sorted(set(sites))
    by_site = counts.of_all_sites(database)
    agents: dict[str, list[Document]] = {}
    for agent in heartbeats.agents(database, names):
        agents.setdefault(agent["site"], []).append(agent)
    holes = {hole.site: hole for hole in reversed(black_holes.of_sites(database, names))}  # the worst of each
    nothing = dict.fromkeys(MajorStatus, 0)
    found = [
        _health(name, by_site.get(name, nothing), agents.get(name, []), _ended(database, name), holes.get(name))
        for name in names
    ]
    order = [Light.RED, Light.AMBER, Light.GREEN, Light.GREY]
    return sorted(found, key=lambda health: (order.index(health.light), health.site))


def _ended(database: Database, site: str) -> tuple[int, int]:
    """Return how many instances ended within the last hours, and how many of them badly."""
    hours = activity.hours(database, [activity.of_site(site)], clock.now() - LOOK_BACK)
    bad = sum(hour.get(str(status), 0) for hour in hours for status in (MajorStatus.FAILED, MajorStatus.TERMINATED))
    return bad + sum(hour.get(str(MajorStatus.DONE), 0) for hour in hours), bad


def _health(
    site: str, now: counts.Counts, agents: list[Document], ended: tuple[int, int], hole: BlackHole | None
) -> SiteHealth:
    total, bad = ended
    failing = bad / total if total else None
    last = max((agent["last_beat"] for agent in agents), default=None)
    light, reason = _judge(now, agents, last, failing if total >= ENOUGH else None, hole)
    return SiteHealth(site, light, reason, last, now, total, failing)


def _judge(
    now: Mapping[MajorStatus, int],
    agents: list[Document],
    last: datetime | None,
    failing: float | None,
    hole: BlackHole | None,
) -> tuple[Light, str]:
    waiting = now[MajorStatus.NEW]
    has_work = waiting + sum(now[status] for status in ACTIVE) > 0
    if last is None:
        return (
            (Light.RED, "no agent was ever heard of, and there is work") if has_work else (Light.GREY, "no agent yet")
        )
    silence = clock.now() - last
    if silence > MISSING and has_work:
        return Light.RED, f"its agent is silent for {_in_words(silence)}"
    if complaint := next((agent["problem"] for agent in agents if agent.get("problem")), ""):
        return Light.RED, f"its agent complains: {complaint}"
    if failing is not None and failing >= MANY:
        return Light.RED, f"{failing:.0%} fail"
    if silence > SILENT:
        return Light.AMBER, f"its agent is silent for {_in_words(silence)}"
    if hole is not None:
        return Light.AMBER, f"host {hole.hostname} fails everything: {hole.failed} in a row"
    if failing is not None and failing >= SOME:
        return Light.AMBER, f"{failing:.0%} fail"
    return Light.GREEN, "works" if has_work else "idle"


def _in_words(time: timedelta) -> str:
    minutes = int(time.total_seconds()) // 60
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"
