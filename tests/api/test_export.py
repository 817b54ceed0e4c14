"""Instances exported as CSV and JSON."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import export, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.instance_search import InstanceFilter, statuses
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput, NotFound, Unavailable
from DmpWorkflow.utils.exports import ROWS_AT_ONCE, csv_lines, json_lines
from tests.api.test_documents import plan
from tests.api.test_reporting import claim_all, make_job, report
from tests.served import Served

XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'
COLUMNS = tuple(export.COLUMNS)
HEADER = (
    "slug,number,status,minor_status,attempt,hostname,batch_id,created_at,last_update,cpu_peak,memory_peak,Nevents"
)


@pytest.fixture
def job(database: Database) -> dict[str, Any]:
    made: ObjectId = make_job(database, 3)
    claim_all(database)
    values: dict[str, Any] = {
        "minor_status": '=SUM("a,b")\n',
        "hostname": "wn1",
        "batchId": "-7",
        "cpu": 5,
        "memory": 9.5,
        "Nevents": 8,
    }
    apply_report(database, report(made, 2, MajorStatus.FAILED, 1, **values))
    return jobs.by_id(database, made)


def test_csv_holds_what_is_stored_and_no_formula(database: Database, job: dict[str, Any]) -> None:
    text = "".join(csv_lines(COLUMNS, export.rows(database, job, InstanceFilter())))
    assert text.splitlines()[0] == HEADER
    first, second, third = csv.DictReader(io.StringIO(text, newline=""))
    assert (first["number"], first["status"], first["hostname"], first["cpu_peak"]) == ("1", "New", "", "")
    assert second["minor_status"] == '\'=SUM("a,b")\n'
    assert [second[name] for name in ("slug", "batch_id", "cpu_peak", "memory_peak", "Nevents")] == [
        job["slug"], "'-7", "5.0", "9.5", "8",
    ]  # fmt: skip
    assert third["created_at"].endswith("Z")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_a_cell_that_a_spreadsheet_would_run_is_marked_as_text(start: str) -> None:
    row = dict.fromkeys(export.COLUMNS, "") | {"hostname": f"{start}cmd", "cpu_peak": -1.5}
    _, written = csv.reader(io.StringIO("".join(csv_lines(COLUMNS, [row])), newline=""))
    assert (written[5], written[9]) == (f"'{start}cmd", "-1.5"), "a number stays one"


def test_json_holds_the_same(database: Database, job: dict[str, Any]) -> None:
    chosen = InstanceFilter(statuses=statuses("Failed"))
    found = json.loads("".join(json_lines(export.rows(database, job, chosen))))
    assert [(row["number"], row["minor_status"], row["cpu_peak"]) for row in found] == [(2, '=SUM("a,b")\n', 5.0)]
    assert list(found[0]) == HEADER.split(",")
    assert json.loads("".join(json_lines([]))) == []
    many = [dict.fromkeys(export.COLUMNS, number) for number in range(2 * ROWS_AT_ONCE + 1)]
    assert json.loads("".join(json_lines(many))) == many


@pytest.mark.parametrize("write", [partial(csv_lines, COLUMNS), json_lines])
def test_an_endless_export_begins_at_once(write: Any) -> None:
    taken = itertools.count()

    def endless() -> Iterator[dict[str, Any]]:
        for number in taken:
            yield dict.fromkeys(export.COLUMNS, number)

    parts = write(endless())
    assert next(parts) and next(parts)
    assert next(taken) <= 2 * ROWS_AT_ONCE + 1, "no more is read than was written"


def test_it_is_read_by_the_index(database: Database, job: dict[str, Any]) -> None:
    chosen = InstanceFilter(n_min=1, n_max=2).query(job["_id"])
    found = plan(database, database.instances, chosen, sort=[("instanceId", 1)])
    assert found == ("job_1_instanceId_1", 1, 1)


def test_exports_over_http(served: Served) -> None:
    client = Client(served.url, served.read_token)
    made = Client(served.url, served.admin_token).create_job(XML % b"exported", instances=5)["jobs"][0]
    slug = made["slug"]
    lines = b"".join(client.export(slug)).decode().splitlines()
    assert (lines[0], len(lines)) == (HEADER, 6)
    found = json.loads(b"".join(client.export(slug, "json", n_min=1, n_max=3, status="New")))
    assert [row["number"] for row in found] == [2, 3]
    token = {"Authorization": f"Bearer {served.read_token}", "Accept-Encoding": "identity"}
    reply = requests.get(f"{served.url}/job/{slug}/export/", headers=token, timeout=60)
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert reply.headers["Content-Disposition"] == f'attachment; filename="{slug}.csv"'
    with pytest.raises(InvalidInput, match="status 'Nonsense'"):
        next(client.export(slug, status="Nonsense"))
    with pytest.raises(InvalidInput, match="format"):
        next(client.export(slug, "xlsx"))
    with pytest.raises(NotFound):
        next(client.export("nosuch"))


def test_an_export_that_broke_off_is_not_taken_for_a_whole_one(served: Served) -> None:
    made = Client(served.url, served.admin_token).create_job(XML % b"broken", instances=1500)["jobs"][0]
    job = served.database.jobs.find_one({"slug": made["slug"]})
    assert job is not None
    served.database.instances.update_one({"job": job["_id"], "instanceId": 1400}, {"$set": {"hostname": b"\xff"}})
    with pytest.raises(Unavailable, match="broke off: what came is not complete"):
        list(Client(served.url, served.read_token).export(made["slug"], "json"))
