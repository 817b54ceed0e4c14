"""A database as the original left it: its field names, naive local times, literals and references, and dirt.

``python tests/original.py URI NAME INSTANCES`` fills one of any size, for measurements.
"""

import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import gridfs
from bson import DBRef, ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from DmpWorkflow.utils.parts import in_parts

Document = dict[str, Any]
XML = b"""<Jobs>
	<Job release="5-1-2" type='User'>
		<MetaData><Var name="USER_DIR" value="/data/userdir" var_type="str"/></MetaData>
		<InputFiles/>
		<OutputFiles><File source="test.dat" target="${USER_DIR}/my_test.dat" file_type="root" /></OutputFiles>
			<JobWrapper executable="bash"><![CDATA[
#! /bin/bash
echo "Hello World" > test.dat
]]>		
			</JobWrapper>
	</Job>
</Jobs>"""  # noqa: W291 - as the original's users write it
VARIABLE = "{u'name': 'SEED', 'value': '%d', 'var_type': 'string'}"
OVERRIDES = "{'InputFiles': [], 'OutputFiles': [], 'MetaData': [" + VARIABLE + "]}"
CTIME = "%a %b %d %H:%M:%S %Y"
BEGIN = datetime(2016, 7, 1, 12, 0, 0)  # on the server's clock
STATUSES = ("Done",) * 12 + ("Failed", "Failed", "Terminated", "New", "New", "Submitted", "Running", "Suspended")


def make_job(
    source: Database[Document], title: str, parents: tuple[Any, ...] = (), xml: bytes | None = XML
) -> ObjectId:
    """Store a job and return its id."""
    body = None if xml is None else gridfs.GridFS(source).put(xml)
    job: Document = {
        "_id": ObjectId(), "_cls": "Job", "created_at": BEGIN, "slug": f"slug{title}"[:20], "title": title,
        "body": body, "type": "User", "release": "5-1-2", "dependencies": list(parents), "execution_site": "TEST",
        "jobInstances": [],
    }  # fmt: skip
    source["job"].insert_one(job)
    found: ObjectId = job["_id"]
    return found


def instance(job: ObjectId, number: int, status: str = "New", **values: Any) -> Document:
    """Return an instance as the original stores it."""
    stages = {"New": ["New"], "Submitted": ["New", "Submitted"]}.get(status, ["New", "Submitted", "Running", status])
    times = [BEGIN + timedelta(minutes=10 * step) for step in range(len(stages))]
    history = [
        {"status": stage, "update": time.strftime(CTIME), "minor_status": f"Minor{stage}"}
        for stage, time in zip(stages, times, strict=True)
    ]
    made: Document = {
        "_id": ObjectId(), "_cls": "JobInstance", "instanceId": number, "created_at": BEGIN,
        "body": OVERRIDES % (number or 0), "last_update": times[-1], "Nevents": None,
        "batchId": 1000 + number if len(stages) > 1 else None,
        "site": "TEST", "hostname": "wn042" if len(stages) > 2 else None, "status": status,
        "minor_status": f"Minor{stages[-1]}", "status_history": history, "log": "", "job": job,
        "cpu": [], "memory": [], "cpu_max": -1.0, "mem_max": -1.0,
    }  # fmt: skip
    if len(stages) > 2:
        sampled = [{"time": time.strftime(CTIME), "value": 12.5 * step} for step, time in enumerate(times)]
        made |= {"cpu": sampled, "memory": sampled, "cpu_max": 86400.0, "mem_max": 4000.0}
    if status == "Failed":
        made["log"] = "stage in\nno such file\n"
    return made | values


def fill(source: Database[Document], jobs: int, instances: int, seed: int = 1) -> None:
    """Store jobs with instances in all statuses; every second job has the one before as its parent."""
    chance = random.Random(seed)  # noqa: S311 - it makes data
    parent: tuple[ObjectId, ...] = ()
    for number in range(jobs):
        job = make_job(source, f"job{number}", parent)
        parent = () if parent else (job,)
        made: Iterator[Document] = (instance(job, one, chance.choice(STATUSES)) for one in range(1, instances + 1))
        ids: list[ObjectId] = []
        for chunk in in_parts(made, 5000):
            ids += source["job_instance"].insert_many(chunk).inserted_ids
        source["job"].update_one({"_id": job}, {"$set": {"jobInstances": ids}})
    source["heart_beat"].insert_one(
        {
            "_cls": "HeartBeat",
            "hostname": "wn042",
            "process": "JobFetcher",
            "version": "2",
            "timestamp": datetime.now(),
        }
    )
    source["data_file"].insert_many(
        {"_cls": "DataFile", "filename": f"/a/{number}.root", "site": "TEST", "status": "New", "filetype": "root",
         "created_at": BEGIN} for number in range(5)
    )  # fmt: skip


def soil(source: Database[Document]) -> None:
    """Add what went wrong over the years."""
    job = make_job(source, "dirty/../job")
    other = make_job(source, "by reference", (DBRef("job", job), ObjectId(), DBRef("job", job)))
    bad = make_job(source, "bad xml", xml=b"<Jobs><Job>")
    make_job(source, "no xml", xml=None)
    twin = make_job(source, "twin"), make_job(source, "twin")
    source["job"].update_one({"_id": job}, {"$set": {"dependencies": [other], "type": "Ancient"}})
    night = {"created_at": datetime(2016, 3, 27, 2, 30), "last_update": datetime(2016, 10, 30, 2, 30)}
    source["job_instance"].insert_many(
        [
            instance(job, 1, "New"), instance(job, 1, "Done"), instance(job, 1, "Running"),  # the same number
            instance(job, 2, "Cleared"), instance(job, 3, "Running", status_history="none", cpu=[1, {"value": "x"}]),
            instance(job, 4, "New", body="__import__('os').getcwd()"), instance(job, 5, "Done", body="[" * 70_000),
            instance(job, 6, "Done", **night), instance(job, 7, "Done", last_update="yesterday", site="CNAF"),
            instance(job, 8, "Failed", log="x" * 200_000, minor_status=None, batchId="Job <77> is submitted"),
            instance(job, 9, "New", body='{"MetaData": []}'), instance(job, None), instance(ObjectId(), 1),  # type: ignore[arg-type]
            {"_id": ObjectId(), "_cls": "JobInstance", "instanceId": 5},
            instance(bad, 1, "New"), instance(other, 1, "New"),
            instance(bad, 2, "Running"), instance(DBRef("job", twin[1]), 1, "Done"),  # type: ignore[arg-type]
        ]
    )  # fmt: skip
    source["data_file"].insert_many(
        [
            {"filename": "/a/0.root", "site": "TEST", "status": "Copied"},
            {"filename": "/b", "site": "TEST", "status": "?"}, {"filename": None, "site": "TEST"},
        ]
    )  # fmt: skip


if __name__ == "__main__":
    uri, name, number = sys.argv[1:]
    with MongoClient[Document](uri) as client:
        fill(client[name], max(1, int(number) // 5000), min(5000, int(number)))
