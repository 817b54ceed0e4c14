"""Fills a database with a month of made-up history: sites, jobs, instances, statistics and files, as the program
itself would have stored them. The same seed gives the same history, shifted to the present time."""

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo import WriteConcern
from pymongo.collection import Collection
from rich.console import Console
from rich.progress import Progress

from DmpWorkflow.config.loader import load
from DmpWorkflow.core.database import audit, clock, counts, data_catalogue, heartbeats, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.utils.errors import Conflict, DmpWorkflowError, InvalidInput
from DmpWorkflow.utils.parts import in_parts
from scripts import demo_statistics
from scripts.demo_instances import History, Tally
from scripts.demo_plan import SITES, Family, PlannedJob, plan

BATCH = 2000  # documents of one insert
FILES = 20_000
PROCESSES = 2  # more only wait for the database
Document = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is to be made, and where."""

    uri: str
    name: str
    jobs: int = 200
    instances: int = 1_000_000
    seed: int = 1
    add: bool = False


def fill(wanted: Wanted, now: datetime, processes: int = PROCESSES, progress: Progress | None = None) -> None:
    """Fill the database; raises Conflict if it holds jobs already and none are to be added."""
    database = Database(wanted.uri, wanted.name)
    try:
        seed, families = _plan(database, wanted, now)
        database.prepare()  # before: the indexes of a million instances, made afterwards, take longer
        task = progress.add_task("instances", total=wanted.instances) if progress else None
        tally = Tally()
        for made, number in _make_all(wanted, seed, now, families, processes):
            tally.add(made)
            if progress and task is not None:
                progress.advance(task, number)
        demo_statistics.write(database, tally, now)
        _register_files(database, seed, now, [job for family in families for job in family])
        for site in SITES:
            heartbeats.beat(database, f"{site.agents[0]}.{site.domain}", "JobFetcher", "2.1.0")
    finally:
        database.close()


def _plan(database: Database, wanted: Wanted, now: datetime) -> tuple[str, list[Family]]:
    """Return the seed and what to make."""
    if not (1 <= wanted.jobs <= 10_000 and 0 <= wanted.instances <= 10_000_000):
        raise InvalidInput("--jobs takes 1 to 10000, --instances 0 to 10000000")
    taken = frozenset(job["title"] for job in database.jobs.find({}, {"title": 1}))
    if taken and not wanted.add:
        raise Conflict(f"database {wanted.name!r} holds jobs: name an empty one, or add to it (--add)")
    seed = f"{wanted.seed}/{len(taken)}"
    return seed, plan(seed, now, wanted.jobs, wanted.instances, taken)


def _make_all(
    wanted: Wanted, seed: str, now: datetime, families: list[Family], processes: int
) -> Iterator[tuple[Tally, int]]:
    """Store the families, the largest ones first, and yield what happened in each, with its number of instances."""
    ordered = sorted(families, key=lambda family: -sum(job.instances for job in family))
    make = partial(make_family, wanted.uri, wanted.name, seed, now)
    if processes == 1:
        yield from map(make, ordered)
        return
    context = multiprocessing.get_context("spawn")  # MongoDB's client is not to be forked
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(make, ordered)


def make_family(uri: str, name: str, seed: str, now: datetime, family: Family) -> tuple[Tally, int]:
    """Store a family of jobs with their instances and counters."""
    database = Database(uri, name)
    try:
        history = History(seed, now, family)
        for batch in in_parts(history.instances(), BATCH):
            _quickly(database.instances).insert_many(batch, ordered=False)
        for position, job in enumerate(family):
            parents = (history.ids[position - 1],) if position else ()
            stored = _job(job, history.ids[position], parents, seed)
            _quickly(database.jobs).insert_one(stored)
            _quickly(database.audit).insert_one(_submitted(stored))
            _quickly(database.counts).insert_many(_slots(history.ids[position], job, history.tally))
    finally:
        database.close()
    return history.tally, sum(job.instances for job in family)


def _quickly(collection: Collection[Document]) -> Collection[Document]:
    """Return the collection without the wait for a majority: who loses this fills another database."""
    return collection.with_options(write_concern=WriteConcern(1))


def _job(job: PlannedJob, job_id: ObjectId, parents: tuple[ObjectId, ...], seed: str) -> Document:
    new = jobs.NewJob(
        job.title, job.type, job.site.name, job.xml.decode(), job.release, job.priority, parents, job.owner
    )
    return jobs.new_document(new) | {
        "_id": job_id,
        "slug": job.slug(seed),
        "created_at": datetime.fromtimestamp(job.created, UTC),
        "allotted": job.instances,
        "tags": list(job.tags),
        "archived": job.archived,
    }


def _submitted(job: Document) -> Document:
    """Return the row of the audit log of a job's submission."""
    by = {"who": job["owner"], "role": "submit", "address": "192.0.2.10"}
    told = {"action": "job.submit", "target": f"job/{job['slug']}", "before": {}, "after": audit.about_job(job)}
    return {"time": job["created_at"]} | by | told


def _slots(job_id: ObjectId, job: PlannedJob, tally: Tally) -> list[Document]:
    """Return the slots of the job's counters, each with its part of the numbers."""
    found = tally.counts[job_id]
    parts = [
        {status: number // counts.SLOTS + (slot < number % counts.SLOTS) for status, number in found.items()}
        for slot in range(counts.SLOTS)
    ]
    return [
        {"_id": f"{job_id}:{slot}", "job": job_id, "site": job.site.name, "status": part}
        for slot, part in enumerate(parts)
    ]


def _register_files(database: Database, seed: str, now: datetime, planned: list[PlannedJob]) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same data for the same seed
    for batch in in_parts(_files(dice, now, planned), BATCH):
        _quickly(database.files).insert_many(batch, ordered=False)


def _files(dice: random.Random, now: datetime, planned: list[PlannedJob]) -> Iterator[Document]:
    for number in range(FILES):
        job = planned[number % len(planned)]
        name = f"{job.title}/{job.title}_{number // len(planned) + 1:06d}.root"
        made = dice.uniform(job.created, now.timestamp())
        changed = dice.uniform(made, now.timestamp())
        yield {
            "_cls": "DataFile", "site": job.site.name, "filename": f"/dampe/{job.type.lower()}/{name}",
            "filetype": "root", "status": dice.choices(data_catalogue.STATUSES, (30, 65, 5))[0],
            "created_at": datetime.fromtimestamp(made, UTC), "last_update": datetime.fromtimestamp(changed, UTC),
        }  # fmt: skip


def main() -> int:
    """Run the command; returns the exit code."""
    options = _options()
    console = Console(stderr=True)
    begin = time.monotonic()
    try:
        wanted = _wanted(options)
        with Progress(console=console) as progress:
            fill(wanted, clock.now(), progress=progress)
    except DmpWorkflowError as error:
        print(f"demo-data: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{wanted.instances} instances of {wanted.jobs} jobs in {time.monotonic() - begin:.0f} s")
    print(f"for the server: batch_sites = {','.join(site.name for site in SITES)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo-data", description=__doc__)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the server's configuration, which names the database"
    )
    parser.add_argument("--uri", help="the database's address, instead of a configuration")
    parser.add_argument("--name", default="demo", help="the database's name, with --uri (default: demo)")
    parser.add_argument("--instances", type=int, default=1_000_000, metavar="N", help="(default: 1000000)")
    parser.add_argument("--jobs", type=int, default=200, metavar="N", help="(default: 200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, another history (default: 1)")
    parser.add_argument("--add", action="store_true", help="also to a database that holds jobs")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> Wanted:
    if bool(options.uri) == bool(options.config):
        raise InvalidInput("name the database: --config FILE, or --uri and --name")
    uri, name = options.uri, options.name
    if options.config:
        stored = load(options.config).settings.database
        uri, name = stored.address, stored.name
    return Wanted(uri, name, options.jobs, options.instances, options.seed, options.add)


if __name__ == "__main__":
    sys.exit(main())
