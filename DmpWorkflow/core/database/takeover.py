"""Takeover of a database of the original: jobs, instances, files and signs of life, with the ids that they have.

It can be repeated: what is new or changed there comes along, and what was worked on here since stays as it is. An
instance remembers when it was last changed there (``taken_over``); as long as that is its last change here, too,
nobody has worked on it here.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import gridfs
from bson import ObjectId
from gridfs.errors import NoFile
from pymongo import DeleteOne, InsertOne, MongoClient, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database as Source
from pymongo.errors import ConfigurationError as BadAddress
from pymongo.errors import PyMongoError

from DmpWorkflow.core.database import children, clock, counts, data_catalogue, legacy
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.documents import HEARTBEAT_SECONDS
from DmpWorkflow.core.database.submission import Words
from DmpWorkflow.core.database.takeover_report import Report
from DmpWorkflow.core.job_xml import LARGEST
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput, Unavailable
from DmpWorkflow.utils.parts import in_parts
from DmpWorkflow.utils.text import first_line

CHUNK = 2000  # instances of one transaction
TRIES = 10  # of a chunk, while others work on its instances
FARTHEST = ("Done", "Failed", "Terminated", "Running", "Suspended", "Unknown", "Submitted", "New")
SOURCE_OPTIONS: dict[str, Any] = {
    "serverSelectionTimeoutMS": 5000,
    "unicode_decode_error_handler": "replace",  # logs have any bytes
    "datetime_conversion": "DATETIME_CLAMP",
}
EXPECTED = "--from: expected mongodb://host:port/database"
SAME = ("_id", "site", "priority")  # of an instance that comes once more


@contextmanager
def opened(uri: str) -> Iterator[Source[Document]]:
    """Open the original's database; raises InvalidInput for what is none, Unavailable for one that is silent."""
    try:
        client: MongoClient[Document] = MongoClient(uri, **SOURCE_OPTIONS)
    except (BadAddress, ValueError) as error:
        raise InvalidInput(f"{EXPECTED}: {first_line(error)}") from error
    with client:
        yield _checked(client)


def _checked(client: MongoClient[Document]) -> Source[Document]:
    try:
        source = client.get_default_database()
        names = set(source.list_collection_names())
    except BadAddress as error:
        raise InvalidInput(f"{EXPECTED}: {first_line(error)}") from error
    except PyMongoError as error:
        raise Unavailable(f"the original's MongoDB: {first_line(error)}") from error
    if missing := {"job", "job_instance"} - names:
        raise InvalidInput(f"database {source.name} is none of the original: it has no collection {min(missing)}")
    if source["job"].find_one({"digest": {"$exists": True}}, {"_id": 1}):
        raise InvalidInput(f"database {source.name} is of this program, not of the original: use backup and restore")
    return source


def take_over(
    database: Database, source: Source[Document], zone: ZoneInfo, words: Words, dry_run: bool = False
) -> Report:
    """Take over what is in ``source``, whose times are of ``zone``; a dry run only reports.

    Raises Unavailable if the instances of a chunk keep changing here meanwhile.
    """
    report = Report()
    run = _Takeover(database, source, zone, words, dry_run)
    run.jobs(report)
    run.instances(report)
    run.files(report)
    run.heartbeats(report)
    return report


class _Chunk:
    """What becomes of some instances: writes with their guards, and what that does to counters and children."""

    def __init__(self) -> None:
        self.report = Report()
        self.writes: list[InsertOne[Document] | UpdateOne | DeleteOne] = []
        self.guarded = 0
        self.counts: defaultdict[ObjectId, Counter[MajorStatus]] = defaultdict(Counter)
        self.highest: Counter[ObjectId] = Counter()
        self.undone: defaultdict[ObjectId, list[int]] = defaultdict(list)

    def insert(self, new: Document) -> None:
        self.writes.append(InsertOne(new))
        self.counts[new["job"]][MajorStatus(new["status"])] += 1
        self.highest[new["job"]] = max(self.highest[new["job"]], new["instanceId"])
        self.report.taken["new instances"] += 1

    def update(self, stored: Document, new: Document) -> None:
        values = {name: value for name, value in new.items() if name not in SAME}
        gone = {"waiting_for": ""} if "waiting_for" not in new else {}
        self.writes.append(UpdateOne(_guard(stored), {"$set": values} | ({"$unset": gone} if gone else {})))
        self.guarded += 1
        self._leave(stored)
        self.counts[new["job"]][MajorStatus(new["status"])] += 1
        self.report.taken["changed instances"] += 1

    def replace(self, stored: Document, new: Document) -> None:
        """Take ``new`` in the place of another one of the same number."""
        self.writes.append(DeleteOne(_guard(stored)))
        self.guarded += 1
        self._leave(stored)
        self.insert(new)

    def _leave(self, stored: Document) -> None:
        status = MajorStatus(stored["status"])
        self.counts[stored["job"]][status] -= 1
        if status is MajorStatus.DONE:
            self.undone[stored["job"]].append(stored["instanceId"])


def _guard(stored: Document) -> Document:
    return {name: stored[name] for name in ("_id", "last_update", "status", "attempt")}


def _untouched(stored: Document) -> bool:
    return "taken_over" in stored and stored["taken_over"] == stored["last_update"]


def _rank(instance: Document) -> int:
    return -FARTHEST.index(str(instance["status"]))


class _ChangedMeanwhileError(Exception):
    """Somebody worked on an instance of the chunk."""


class _Takeover:
    """One run: where from, where to, and the jobs that there are."""

    def __init__(
        self, database: Database, source: Source[Document], zone: ZoneInfo, words: Words, dry_run: bool
    ) -> None:
        self._database = database
        self._source = source
        self._zone = zone
        self._words = words
        self._dry_run = dry_run
        self._jobs: dict[ObjectId, Document] = {}
        self._names: set[tuple[str, ...]] = set()  # slugs, and what else names a job
        self._found: Counter[ObjectId] = Counter()

    def _times(self, report: Report) -> legacy.Times:
        return legacy.Times(self._zone, report.doubt)

    # Jobs

    def jobs(self, report: Report) -> None:
        """Take over the jobs: those that are new."""
        old = list(self._source["job"].find({}, {"jobInstances": 0}).sort("_id"))
        parents = _parents(old, report)
        known = {job["_id"]: job for job in self._database.jobs.find({"_id": {"$in": [job["_id"] for job in old]}})}
        for one in old:
            if one["_id"] in known:
                self._jobs[one["_id"]] = known[one["_id"]]
                continue
            self._jobs[one["_id"]] = job = legacy.job(
                one, self._xml(one), parents[one["_id"]], self._times(report), report.doubt
            )
            self._make_unique(job, report)
            self._check_words(job, report)
            report.taken["new jobs"] += 1
            if not self._dry_run:
                self._database.transaction(partial(self._insert_job, job))

    def _insert_job(self, job: Document, session: ClientSession) -> None:
        self._database.jobs.insert_one(job, session=session)
        counts.create(self._database, job["_id"], job["execution_site"], session)

    def _xml(self, old: Document) -> bytes | None:
        body = old.get("body")
        if isinstance(body, str):
            return body.encode()
        try:
            return gridfs.GridFS(self._source).get(body).read(LARGEST + 1)
        except (NoFile, gridfs.errors.CorruptGridFile):
            return None

    def _make_unique(self, job: Document, report: Report) -> None:
        """Give a job another slug or title, where there is one of that here already."""
        if self._is_taken(slug := {"slug": job["slug"]}):
            job["slug"] = str(job["_id"])
            report.doubt("a slug that is taken: changed", f"job {job['_id']} ({job['title']}): {slug['slug']}")
        if self._is_taken({name: job[name] for name in ("title", "type", "execution_site")}):
            job["title"] = f"{job['title'][:200]}-{job['slug']}"
            report.doubt("a title that is taken: changed", f"job {job['_id']}: {job['title']}")

    def _is_taken(self, key: dict[str, str]) -> bool:
        name = tuple(key.values())
        taken = name in self._names or self._database.jobs.find_one(key, {"_id": 1}) is not None
        self._names.add(name)
        return taken

    def _check_words(self, job: Document, report: Report) -> None:
        title, kind, site = job["title"], job["type"], job["execution_site"]
        if kind not in self._words.types:
            report.doubt("a type that is not among [JobDB] task_types", f"job {title}: {kind}")
        if site not in self._words.sites:
            report.doubt("a site that is not among [JobDB] batch_sites", f"job {title}: {site}")

    # Instances

    def instances(self, report: Report) -> None:
        """Take over the instances, chunk by chunk; then let those go whose parents are Done."""
        if self._dry_run:
            self._count_duplicates(report)
        with self._source["job_instance"].find(sort=[("_id", 1)], batch_size=CHUNK) as found:
            for chunk in in_parts(found, CHUNK):
                self._take_chunk(chunk, report)
        self._compare_references(report)
        if not self._dry_run:
            self._release_children()

    def _take_chunk(self, old: Sequence[Document], report: Report) -> None:
        for _ in range(TRIES):
            chunk = self._decide(old)
            try:
                if chunk.writes and not self._dry_run:
                    self._database.transaction(partial(self._write, chunk))
            except _ChangedMeanwhileError:
                continue
            report.merge(chunk.report)
            self._found.update(job for one in old if (job := legacy.reference(one.get("job"))))
            return
        raise Unavailable("instances that are taken over keep changing here: stop the server's agents, and repeat it")

    def _decide(self, old: Sequence[Document]) -> _Chunk:
        chunk = _Chunk()
        new = self._converted(self._without_known(old, chunk.report), chunk.report)
        by_id, by_number = self._stored(new)
        for one in new:
            key = (one["job"], one["instanceId"])
            if stored := by_id.get(one["_id"]):
                self._compare(chunk, stored, one)
            elif other := by_number.get(key):
                self._choose(chunk, other, one)
            else:
                chunk.insert(one)
        return chunk

    def _without_known(self, old: Sequence[Document], report: Report) -> list[Document]:
        """Return those that are not here as they are there."""
        times = legacy.Times(self._zone, lambda *_: None)
        ids = {"_id": {"$in": [one["_id"] for one in old]}}
        fields = {"status": 1, "last_update": 1, "taken_over": 1}
        here = {one["_id"]: one for one in self._database.instances.find(ids, fields) if _untouched(one)}
        rest = []
        for one in old:
            stored = here.get(one["_id"])
            time = times.aware(one.get("last_update"), "")
            if stored is None or (stored["status"], stored["taken_over"]) != (one.get("status"), time):
                rest.append(one)
        if len(rest) < len(old):
            report.taken["instances that are here already"] += len(old) - len(rest)
        return rest

    def _converted(self, old: Sequence[Document], report: Report) -> list[Document]:
        """Return those that can be taken, of several with the same number the one that came farthest."""
        best: dict[tuple[ObjectId, int], Document] = {}
        times = self._times(report)
        for one in old:
            job = legacy.reference(one.get("job"))
            number = legacy.number(one.get("instanceId"))
            if job not in self._jobs or job is None:
                report.skip("an instance without a job", f"{one['_id']}, number {one.get('instanceId')}")
            elif number is None:
                report.skip("an instance without a number", f"{one['_id']} of {self._jobs[job]['title']}")
            else:
                new = legacy.instance(one, self._jobs[job], times, report.doubt)
                worse, best[job, number] = sorted((new, best.get((job, number), new)), key=_rank)
                if worse["_id"] != best[job, number]["_id"]:
                    report.skip(*self._duplicate(worse))
        return list(best.values())

    def _duplicate(self, instance: Document) -> tuple[str, str]:
        title = self._jobs[instance["job"]]["title"]
        about = f"{instance['instanceId']} of {title} ({instance['_id']}, {instance['status']})"
        return "a second instance of the same number: the one that came farthest is taken", about

    def _stored(
        self, new: Sequence[Document]
    ) -> tuple[dict[ObjectId, Document], dict[tuple[ObjectId, int], Document]]:
        numbers: defaultdict[ObjectId, list[int]] = defaultdict(list)
        for one in new:
            numbers[one["job"]].append(one["instanceId"])
        if not numbers:
            return {}, {}
        same: list[Document] = [{"job": job, "instanceId": {"$in": found}} for job, found in numbers.items()]
        query = {"$or": [*same, {"_id": {"$in": [one["_id"] for one in new]}}]}
        fields = ("job", "instanceId", "status", "last_update", "taken_over", "attempt")
        stored = list(self._database.instances.find(query, dict.fromkeys(fields, 1)))
        by_number = {(one["job"], one["instanceId"]): one for one in stored}
        return {one["_id"]: one for one in stored}, by_number

    def _compare(self, chunk: _Chunk, stored: Document, new: Document) -> None:
        changed = stored.get("taken_over") != new["taken_over"]
        if not _untouched(stored):
            if changed:
                about = f"{new['instanceId']} of {self._jobs[new['job']]['title']}: {new['status']} there"
                chunk.report.doubt("changed there and here since: left as it is here", about)
            chunk.report.taken["instances that were worked on here, and stay"] += 1
        elif changed or stored["status"] != new["status"]:
            chunk.update(stored, new)
        else:
            chunk.report.taken["instances that are here already"] += 1

    def _choose(self, chunk: _Chunk, stored: Document, new: Document) -> None:
        """Of two with the same number, take the one that came farther, unless the other was worked on here."""
        if _untouched(stored) and _rank(new) > _rank(stored):
            chunk.report.skip(*self._duplicate(stored))
            chunk.replace(stored, new)
        else:
            chunk.report.skip(*self._duplicate(new))

    def _write(self, chunk: _Chunk, session: ClientSession) -> None:
        done = self._database.instances.bulk_write(chunk.writes, session=session)
        if done.matched_count + done.deleted_count != chunk.guarded:
            raise _ChangedMeanwhileError
        for job, numbers in chunk.undone.items():
            children.hold_back(self._database, job, numbers, session)  # those that are Done again go below
        for job, highest in chunk.highest.items():
            self._database.jobs.update_one({"_id": job}, {"$max": {"allotted": highest}}, session=session)
        for job in sorted(chunk.counts):
            counts.change(self._database, job, chunk.counts[job], session)

    def _release_children(self) -> None:
        for job in list(self._database.jobs.find({"dependencies": {"$in": list(self._jobs)}}, {"dependencies": 1})):
            for parent in job["dependencies"]:
                self._release(job["_id"], parent)

    def _release(self, job: ObjectId, parent: ObjectId) -> None:
        """Let the instances of ``job`` go whose instance of ``parent`` is Done."""
        waiting = {"job": job, "status": str(MajorStatus.NEW), "waiting_for": parent}
        for chunk in in_parts(self._database.instances.find(waiting, {"instanceId": 1}), CHUNK):
            numbers = [one["instanceId"] for one in chunk]
            self._database.transaction(partial(self._release_chunk, parent, numbers))

    def _release_chunk(self, parent: ObjectId, numbers: Sequence[int], session: ClientSession) -> None:
        counts.lock(self._database, parent, session)  # none of it is rolled back just now
        query = {"job": parent, "instanceId": {"$in": list(numbers)}, "status": str(MajorStatus.DONE)}
        done = [one["instanceId"] for one in self._database.instances.find(query, {"instanceId": 1}, session=session)]
        children.release(self._database, parent, done, session)

    def _count_duplicates(self, report: Report) -> None:
        """Tell of numbers that occur twice: without writing, those of two chunks do not meet."""
        key = {"job": "$job", "number": "$instanceId"}
        steps: list[Document] = [{"$group": {"_id": key, "times": {"$sum": 1}}}, {"$match": {"times": {"$gt": 1}}}]
        for found in self._source["job_instance"].aggregate(steps, allowDiskUse=True):
            about = f"{found['_id'].get('number')} of job {found['_id'].get('job')}: {found['times']} times"
            report.doubt("a number of an instance that occurs more than once", about)

    def _compare_references(self, report: Report) -> None:
        size = {"$size": {"$ifNull": ["$jobInstances", []]}}
        for found in self._source["job"].aggregate([{"$project": {"listed": size}}]):
            listed, there = found["listed"], self._found[found["_id"]]
            if listed != there:
                about = f"{self._jobs[found['_id']]['title']} lists {listed}, and there are {there}"
                report.doubt("a job that lists another number of instances than there are", about)

    # The rest

    def files(self, report: Report) -> None:
        """Take over the data catalogue: files that are new, and their status while nobody changed it here."""
        with self._source["data_file"].find(sort=[("_id", 1)], batch_size=CHUNK) as found:
            for chunk in in_parts(found, CHUNK):
                self._take_files(chunk, report)

    def _take_files(self, old: Sequence[Document], report: Report) -> None:
        new: dict[tuple[str, str], Document] = {}
        for one in old:
            if not one.get("filename") or not one.get("site"):
                report.skip("a file without a name or a site", str(one["_id"]))
                continue
            file = legacy.file(one, self._times(report), report.doubt, data_catalogue.STATUSES)
            if new.setdefault((file["site"], file["filename"]), file) is not file:
                report.skip("a file that is entered twice", f"{file['filename']} at {file['site']}")
        query = {"$or": [{"site": site, "filename": name} for site, name in new]}
        stored = {(one["site"], one["filename"]): one for one in (self._database.files.find(query) if new else ())}
        writes: list[InsertOne[Document] | UpdateOne] = []
        for key, file in new.items():
            other = stored.get(key)
            if other is None:
                writes.append(InsertOne(file))
                report.taken["new files"] += 1
            elif other["_id"] != file["_id"]:
                report.skip("a file that is entered twice", f"{file['filename']} at {file['site']}")
            elif other["status"] != file["status"] and not other.get("last_update"):
                untouched = {"_id": file["_id"], "last_update": None}
                writes.append(UpdateOne(untouched, {"$set": {"status": file["status"]}}))
                report.taken["changed files"] += 1
            else:
                report.taken["files that are here already"] += 1
        if writes and not self._dry_run:
            self._database.files.bulk_write(writes, ordered=False)

    def heartbeats(self, report: Report) -> None:
        """Take over the last sign of life of each process that is not too old to be kept."""
        for old in self._source["heart_beat"].find(sort=[("_id", 1)]):
            time = self._times(report).aware(old.get("timestamp"), f"heartbeat {old['_id']}")
            if not old.get("hostname") or not time or (clock.now() - time).total_seconds() > HEARTBEAT_SECONDS:
                continue
            key = {"hostname": str(old["hostname"]), "process": str(old.get("process") or "")}
            told = {"_cls": "HeartBeat", "version": str(old.get("version") or "")}
            report.taken["heartbeats"] += 1
            if not self._dry_run:
                update: Any = {"$max": {"timestamp": time}, "$setOnInsert": told}
                self._database.heartbeats.update_one(key, update, upsert=True)


def _parents(old: Sequence[Document], report: Report) -> dict[ObjectId, list[ObjectId]]:
    """Return the parents of each job, less those that are not there or would close a circle."""
    known = {job["_id"] for job in old}
    parents: dict[ObjectId, list[ObjectId]] = {job["_id"]: [] for job in old}
    for job in old:
        for given in job.get("dependencies") or ():
            parent = legacy.reference(given)
            if parent not in known or parent is None:
                report.doubt("a parent that is not there: left out", f"of job {job.get('title')}")
            elif job["_id"] in _ancestors(parent, parents):
                report.doubt("a parent that would close a circle: left out", f"of job {job.get('title')}")
            elif parent not in parents[job["_id"]]:
                parents[job["_id"]].append(parent)
    return parents


def _ancestors(job: ObjectId, parents: dict[ObjectId, list[ObjectId]]) -> set[ObjectId]:
    """Return the job and all its ancestors so far."""
    found: set[ObjectId] = set()
    open_ends = [job]
    while open_ends:
        one = open_ends.pop()
        if one not in found:
            found.add(one)
            open_ends += parents[one]
    return found
