"""What is stuck: the oldest of each status, silent agents, sites in trouble, paused jobs."""

from collections.abc import Iterator
from datetime import datetime

from DmpWorkflow.core.database import clock, counts, site_health
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.site_health import Light
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.text import numbered

MOST_NAMED = 20


def in_words(database: Database) -> str:
    """Return what an operator may want to look at, as one line."""
    return "; ".join([*_active(database), *_sites(database), *_agents(database), *_jobs(database)]) or "nothing waits"


def _active(database: Database) -> Iterator[str]:
    """Say of each active status how many there are, and how long the most silent one is silent."""
    stalled = {"$sum": {"$cond": ["$stalled_since", 1, 0]}}
    figures = {"number": {"$sum": 1}, "oldest": {"$min": "$last_contact"}, "stalled": stalled}
    steps: list[Document] = [
        {"$match": {"active": True}},
        {"$group": {"_id": "$status"} | figures},
        {"$sort": {"_id": 1}},
    ]
    for group in database.instances.aggregate(steps):
        words = f"{group['number']} {group['_id']}"
        words += f", the last sign of life of one {_ago(group['oldest'])} ago" if group["oldest"] else ""
        yield words + (f", {group['stalled']} stalled" if group["stalled"] else "")


def _sites(database: Database) -> Iterator[str]:
    totals = counts.of_all_sites(database)
    for health in site_health.of_sites(database, totals):
        if health.light in (Light.RED, Light.AMBER):
            yield f"site {health.site}: {health.reason}, {totals[health.site][MajorStatus.NEW]} New"


def _agents(database: Database) -> Iterator[str]:
    silent = {"last_beat": {"$lt": clock.now() - site_health.SILENT}}
    for agent in database.agents.find(silent, sort=[("last_beat", 1)], limit=MOST_NAMED):
        yield f"agent {agent['agent']} of {agent['site']} is silent for {_ago(agent['last_beat'])}"


def _jobs(database: Database) -> Iterator[str]:
    fields = {"title": 1, "slug": 1, "paused": 1}
    for job in database.jobs.find({"paused": {"$gt": ""}}, fields, limit=MOST_NAMED):
        yield f"job {job['title']} ({job['slug']}) is paused: {job['paused']}"
    for job in database.jobs.find({"creations": {"$ne": []}}, fields, limit=MOST_NAMED):
        yield f"instances of job {job['title']} ({job['slug']}) are being created"


def _ago(time: datetime) -> str:
    minutes = int((clock.now() - time).total_seconds()) // 60
    return numbered(minutes, "minute") if minutes < 120 else f"{minutes // 60} hours"
