"""The benchmark: times of the server's hot paths, as ratios to bare pymongo in the same run, and footprints."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import requests
from bson import ObjectId
from pymongo import UpdateOne
from rich.console import Console
from rich.table import Table

from DmpWorkflow.backend.run_file import RunBatch, RunFile, RunLimits, RunSite
from DmpWorkflow.client import Client
from DmpWorkflow.core.database import claims, clock, counts, creation, credentials, instance_search, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.instance_search import InstanceFilter
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.lifecycle import MajorStatus
from scripts.server_process import served

SITE = "local"
REPEATS = 5
LEASE = timedelta(hours=1)
EVERY = InstanceFilter()
NEW = InstanceFilter(statuses=(MajorStatus.NEW,))
unique = count()


@dataclass
class Figure:
    """One line of the result: ``seconds`` is a median; ``ratio`` is to the work named in ``against``."""

    name: str
    seconds: float | None = None
    per_second: float | None = None
    ratio: float | None = None
    against: str = ""
    megabytes: float | None = None
    kilobytes: float | None = None


class Bench:
    """A database and a served process, and what was measured on them."""

    def __init__(self, mongod: EmbeddedMongod, url: str, server: "subprocess.Popen[bytes]", quick: bool) -> None:
        self.mongod = mongod
        self.database = Database(mongod.uri, "bench")
        self.database.prepare()
        self.bare = Database(mongod.uri, "bench_bare")
        self.bare.prepare()
        self.server = server
        self.quick = quick
        self.admin = credentials.create(self.database, "bench", "admin")[0]
        self.url = url
        self.client = Client(url, self.admin)
        self.figures: list[Figure] = []

    def add(
        self, name: str, seconds: float, number: int = 0, against: float | None = None, word: str = "bare"
    ) -> None:
        """Note a time, what it means for ``number`` items a second, and its ratio to another time."""
        ratio = seconds / against if against else None
        self.figures.append(Figure(name, seconds, number / seconds if number else None, ratio, word if ratio else ""))
        Console(stderr=True).print(f"{name}: {seconds * 1000:.1f} ms" + (f", {ratio:.2f} x {word}" if ratio else ""))

    def new_job(self, instances: int = 0, database: Database | None = None) -> ObjectId:
        """Make a job."""
        title = f"bench{next(unique)}"
        made: ObjectId = jobs.submit(database or self.database, jobs.NewJob(title, "User", SITE, XML))["_id"]
        if instances:
            for start in range(0, instances, creation.MOST_AT_ONCE):
                part = min(creation.MOST_AT_ONCE, instances - start)
                creation.create_instances(database or self.database, made, part)
        return made

    def server_megabytes(self) -> float:
        """Return the resident memory of the server's processes, together."""
        tree = [psutil.Process(self.server.pid), *psutil.Process(self.server.pid).children()]
        return sum(process.memory_info().rss for process in tree) / 2**20


XML = '<Jobs><Job name="bench" type="User"><JobWrapper executable="/bin/bash">true\n</JobWrapper></Job></Jobs>'


def median(work: Callable[[], object], repeats: int = REPEATS, before: Callable[[], object] = lambda: None) -> float:
    """Return the median time of ``work`` in seconds; ``before`` is done before each and not counted."""
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_creation(bench: Bench) -> None:
    """Create instances, by the core and by one request, beside a bare insert_many with the same indexes."""
    for number in (1_000, 10_000) if bench.quick else (1_000, 10_000, 100_000):
        repeats = REPEATS if number < 100_000 else 3
        job = bench.new_job()
        bare_job = ObjectId()
        first = count(1, number)

        def bare(job: ObjectId = bare_job, number: int = number, first: Iterator[int] = first) -> None:
            _insert_bare(bench.bare, job, range(next(first), 10**12), number)

        plain = median(bare, repeats)
        bench.add(f"create {number}: bare insert_many", plain, number)
        core = median(lambda job=job, number=number: creation.create_instances(bench.database, job, number), repeats)  # type: ignore[misc]
        bench.add(f"create {number}: core", core, number, plain)
        title = jobs.by_id(bench.database, job)["title"]
        http = median(lambda t=title, n=number: bench.client.add_instances(t, "User", n), repeats)  # type: ignore[misc]
        bench.add(f"create {number}: HTTP", http, number, plain)
        bench.database.instances.delete_many({})
        bench.bare.instances.delete_many({})
    bench.figures.append(Figure("server after these requests", megabytes=bench.server_megabytes()))


def _insert_bare(database: Database, job: ObjectId, numbers: range, number: int) -> None:
    stored = {"_id": job, "execution_site": SITE, "priority": 0}
    for start in range(numbers.start, numbers.start + number, creation.CHUNK):
        part = range(start, min(start + creation.CHUNK, numbers.start + number))
        database.instances.insert_many(creation._documents(stored, part, "", {}), ordered=False)


def measure_claims(bench: Bench) -> None:
    """Claim 20 and 1,000 out of 10k and of 1M, beside the same find and updates bare."""
    sizes = (20_000, 100_000) if bench.quick else (20_000, 1_000_000)  # some are used up on the way
    times: dict[int, list[float]] = {20: [], 1000: []}
    for size in sizes:
        bench.database.instances.delete_many({})
        bench.new_job(size)
        for limit in (20, 1000):
            plain = median(lambda limit=limit: _claim_bare(bench.database, limit))  # type: ignore[misc]
            core = median(lambda limit=limit: claims.claim(bench.database, _request(limit)))  # type: ignore[misc]
            http = median(
                lambda limit=limit: bench.client.claim(SITE, limit, agent="bench", request_id=uuid.uuid4().hex)  # type: ignore[misc]
            )
            bench.add(f"claim {limit} of {size}: bare", plain, limit)
            bench.add(f"claim {limit} of {size}: core", core, limit, plain)
            bench.add(f"claim {limit} of {size}: HTTP, with definitions and tokens", http, limit, plain)
            times[limit].append(core)
    for limit, (small, large) in times.items():
        bench.add(f"claim {limit} of {sizes[1]}", large, limit, small, f"of {sizes[0]}")


def _request(limit: int) -> claims.ClaimRequest:
    return claims.ClaimRequest(SITE, "bench", uuid.uuid4().hex, limit, LEASE)


def _claim_bare(database: Database, limit: int) -> None:
    request = uuid.uuid4().hex
    query = {"site": SITE, "claimable": True}
    ids = [found["_id"] for found in database.instances.find(query, {"_id": 1}, sort=claims.ORDER, limit=limit)]
    lease = {"claimable": False, "claim": {"request": request}, "waits_until": clock.now() + LEASE}
    database.instances.update_many({"_id": {"$in": ids}, "claimable": True}, {"$set": lease, "$inc": {"attempt": 1}})
    list(database.instances.find({"_id": {"$in": ids}, "claim.request": request}))


def measure_pages(bench: Bench) -> None:
    """Read lists by key, with few and with many instances stored (those of the claims are there still)."""
    large = bench.database.jobs.find_one({}, sort=[("_id", -1)])
    assert large is not None
    small = bench.new_job(1_000)
    pages = {name: job for name, job in (("1,000", small), ("many", large["_id"]))}
    times: dict[str, list[float]] = {}
    for name, job in pages.items():
        found = jobs.by_id(bench.database, job)
        kinds: dict[str, Callable[[], object]] = {
            "job page, first": lambda job=job: instance_search.search(bench.database, job, EVERY),  # type: ignore[misc]
            "job page, deep": lambda job=job, n=found["allotted"] - 200: instance_search.search(  # type: ignore[misc]
                bench.database, job, EVERY, after=str(n)
            ),
            "job page, filtered": lambda job=job: instance_search.search(bench.database, job, NEW),  # type: ignore[misc]
            "counts of a job": lambda job=job: counts.of_jobs(bench.database, [job]),  # type: ignore[misc]
            "job page over HTTP": lambda slug=found["slug"]: _get(bench, f"/jobs/{slug}"),  # type: ignore[misc]
        }
        for kind, read in kinds.items():
            times.setdefault(kind, []).append(median(read, 15))
            bench.add(f"{kind}, {name} instances", times[kind][-1])
    for kind, (few, many) in times.items():
        bench.add(f"{kind}, many", many, 0, few, "1,000 instances")
    for _ in range(60):
        bench.new_job()
    bench.add("list of 50 jobs over HTTP", median(lambda: list(bench.client.jobs(most=50)), 15))
    bench.add("list page of 50 jobs over HTTP", median(lambda: _get(bench, "/"), 15))


def _get(bench: Bench, path: str) -> None:
    reply = requests.get(bench.url + path, headers={"Authorization": f"Bearer {bench.admin}"}, timeout=60)
    reply.raise_for_status()


def measure_reports(bench: Bench) -> None:
    """Report: single and in bulk, with 1 and 8 clients, beside bare guarded updates."""
    number = 400 if bench.quick else 1_600
    bench.database.instances.delete_many({})
    job = bench.new_job(number * 6)
    for _ in range(0, number * 6, 1000):
        claims.claim(bench.database, _request(1000))
    plain = _time(lambda: _update_each_bare(bench, job, range(1, number + 1)))
    bench.add(f"{number} bare guarded updates, one by one", plain, number)
    numbers = iter(range(number + 1, 10**9))
    for clients in (1, 8):
        for kind, status in (("a status", "Submitted"), ("a sample", "Running")):
            chosen = [next(numbers) for _ in range(number // 2)]
            if status == "Running":
                bench.client.report_many([_report(job, n, "Running", 1) for n in chosen])
            took = _time(lambda: _in_parallel(bench, clients, [[_report(job, n, status, 2)] for n in chosen]))  # noqa: B023
            against = plain * len(chosen) / number
            bench.add(f"single reports of {kind}, {clients} clients, HTTP", took, len(chosen), against)
    for clients in (1, 8):
        chosen = [next(numbers) for _ in range(number)]
        parts = [chosen[start : start + 200] for start in range(0, number, 200)]
        took = _time(
            lambda: _in_parallel(bench, clients, [[_report(job, n, "Submitted", 2) for n in part] for part in parts])  # noqa: B023
        )
        plain_bulk = _time(lambda: _bulk_bare(bench, job, parts))  # noqa: B023
        bench.add(f"bulk reports of 200, {clients} clients, HTTP", took, number, plain_bulk, "bare bulk_write")
    beat = {"site": SITE, "agent": "bench", "hostname": "h", "version": "3"}
    holds = [{"job_id": str(job), "instances": list(range(1, 1001)), "attempt": 1}]
    bench.add("heartbeat with 1,000 holds, HTTP", median(lambda: bench.client.agent_heartbeat(beat, holds)), 1000)


def _report(job: ObjectId, number: int, status: str, sequence: int) -> dict[str, Any]:
    about = {"t_id": str(job), "inst_id": number, "attempt": 1, "sequence": sequence}
    return about | {"major_status": status, "cpu": 12.5, "memory": 800.0}


def _in_parallel(bench: Bench, clients: int, requests: list[list[dict[str, Any]]]) -> None:
    def work(part: list[list[dict[str, Any]]]) -> None:
        with Client(bench.url, bench.admin) as client:
            for reports in part:
                results = client.report_many(reports) if len(reports) > 1 else [client.report(reports[0])]
                assert all(result["result"] == "ok" for result in results), results

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, [requests[start::clients] for start in range(clients)]))


def _guarded(job: ObjectId, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    guard = {"job": job, "instanceId": number, "attempt": 1, "handed_out": True}
    return guard, {
        "$set": {"minor_status": "Bare", "last_update": clock.now()},
        "$push": {"cpu": {"value": 1.0}},
    }


def _update_each_bare(bench: Bench, job: ObjectId, numbers: range) -> None:
    for number in numbers:
        bench.database.instances.update_one(*_guarded(job, number))


def _bulk_bare(bench: Bench, job: ObjectId, parts: list[list[int]]) -> None:
    for numbers in parts:
        bench.database.instances.bulk_write([UpdateOne(*_guarded(job, n)) for n in numbers], ordered=False)


def _time(work: Callable[[], object]) -> float:
    return median(work, 1)


def measure_runner(bench: Bench, folder: Path) -> None:
    """Run a trivial payload under the runner, and bare; and a payload that waits, to see the runner's memory."""
    (folder / "payload").write_text("true\n")
    bare = median(lambda: subprocess.run(["/bin/bash", str(folder / "payload")], check=True), 11)
    paths = iter(_run_files(bench, folder, 11, "true\n"))
    took = median(lambda: _run(next(paths)), 11)
    bench.add("trivial payload, bare", bare)
    bench.add("trivial payload under the runner, all of it", took, 0, bare)
    bench.add("added by the runner", took - bare)
    (path,) = _run_files(bench, folder, 1, "sleep 1\n")
    bench.figures.append(Figure("runner, peak resident memory", megabytes=_run(path)))


def _run_files(bench: Bench, folder: Path, number: int, script: str) -> list[Path]:
    bench.database.instances.delete_many({})
    job = bench.new_job(number)
    work = bench.client.claim(SITE, number, agent="bench", request_id=uuid.uuid4().hex)
    paths = []
    for instance in work["instances"]:
        path = folder / f"{instance['instance_id']}.jsonl"
        run = RunFile(
            server_url=bench.url, token=instance["token"], job_id=str(job), instance_id=instance["instance_id"],
            attempt=1, outbox=str(folder / "outbox"), script=script, title="bench", type="User",
            site=RunSite(exec_dir_root=str(folder / "run")), batch=RunBatch(), limits=RunLimits(4000, 3600),
        )  # fmt: skip
        RunFile.save(path, [run])
        paths.append(path)
    return paths


def _run(path: Path) -> float:
    """Run one payload and return the peak of its runner's own memory in MB."""
    command = [sys.executable, "-m", "DmpWorkflow.backend.runner", str(path), "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        try:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.005)
    assert process.wait() == 0
    return peak


def show(figures: list[Figure]) -> None:
    """Print the figures as a table."""
    table = Table("what", "ms", "per second", "ratio", "to", "MB", "kB")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.seconds * 1000:.1f}" if figure.seconds is not None else "",
            f"{figure.per_second:.0f}" if figure.per_second else "",
            f"{figure.ratio:.2f}" if figure.ratio else "",
            figure.against,
            f"{figure.megabytes:.0f}" if figure.megabytes else "",
            f"{figure.kilobytes:.1f}" if figure.kilobytes else "",
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def measure_schedulers(quick: bool) -> list[Figure]:
    """Return figures of the agent with real schedulers; ratios are times of the agent to times of bare commands."""
    from scripts import bench_schedulers  # here, since it needs root and starts real schedulers

    return [
        Figure(name, agent, ratio=agent / bare, against=f"bare commands ({bare * 1000:.0f} ms)")
        for name, bare, agent in bench_schedulers.measure(quick)
    ]


def measure_dashboard(quick: bool) -> list[Figure]:
    """Return times of pages and refreshes with many instances, as ratios to few and to bare queries, and weights."""
    from scripts import bench_pages  # here, since it fills databases of its own

    measured = bench_pages.measure(quick)
    figures = [
        Figure(
            time.name,
            time.seconds,
            ratio=time.seconds / time.other,
            against=f"{time.against} ({time.other * 1000:.1f} ms)",
        )
        for time in measured.times
    ]
    return figures + [Figure(name, kilobytes=weight / 1000) for name, weight in measured.weights.items()]


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers; a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--schedulers", action="store_true", help="the agent beside real schedulers instead (as root)"
    )
    parser.add_argument("--pages", action="store_true", help="the pages, with few and with many instances, instead")
    options = parser.parse_args()
    figures = _measure(options)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


def _measure(options: argparse.Namespace) -> list[Figure]:
    if options.schedulers:
        return measure_schedulers(options.quick)
    if options.pages:
        return measure_dashboard(options.quick)
    with tempfile.TemporaryDirectory() as name, EmbeddedMongod(Path(name) / "mongodb") as mongod:
        folder = Path(name)
        with served(mongod.uri, "bench", folder, [SITE]) as (url, server):
            bench = Bench(mongod, url, server, options.quick)
            measure_creation(bench)
            measure_claims(bench)
            measure_pages(bench)
            measure_reports(bench)
            measure_runner(bench, folder)
            bench.figures.append(Figure("server, two workers, at the end", megabytes=bench.server_megabytes()))
            assert mongod.process is not None
            resident = psutil.Process(mongod.process.pid).memory_info().rss / 2**20
            bench.figures.append(Figure("mongod at the end", megabytes=resident))
    return bench.figures


if __name__ == "__main__":
    main()
