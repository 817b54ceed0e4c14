"""The newer routes, against a served process."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.served import Served, serve

XML = b"""<Jobs><Job type="User" name="%s"><MetaData><Var name="A" value="$B"/><Var name="B" value="1"/></MetaData>
<JobWrapper executable="bash">true</JobWrapper></Job></Jobs>"""

Call = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def call(served: Served) -> Call:
    def send(method: str, path: str, token: str | None = None, **values: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or served.admin_token}"}
        return requests.request(method, served.url + path, headers=headers, timeout=60, **values)

    return send


def make_job(call: Call, number: int, **fields: Any) -> dict[str, Any]:
    name = f"job-{uuid.uuid4().hex[:8]}"
    reply = call("POST", "/job/", files={"file": XML % name.encode()}, data={"n_instances": number} | fields)
    assert reply.status_code == 200, reply.text
    made: dict[str, Any] = reply.json()["jobs"][0]
    return made


def claim(call: Call, served: Served, limit: int, **fields: Any) -> requests.Response:
    body = {"site": "local", "limit": limit, "agent": "a1", "request_id": uuid.uuid4().hex}
    return call("POST", "/newjobs/", token=served.site_token, json=body | fields)


def test_health_needs_no_credential_and_everything_else_does(served: Served) -> None:
    health = requests.get(f"{served.url}/health", timeout=30).json()
    assert (health["result"], health["database"], health["auth"]) == ("ok", "ok", "required")
    reply = requests.get(f"{served.url}/job/", timeout=30)
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="DmpWorkflow"')
    assert reply.json()["result"] == "nok"
    assert (
        requests.get(f"{served.url}/job/", headers={"Authorization": "Bearer wrong"}, timeout=30).status_code == 401
    )


def test_whoami(call: Call, served: Served) -> None:
    assert call("GET", "/whoami/", token=served.site_token).json() == {
        "result": "ok",
        "role": "site",
        "site": "local",
        "name": "site",
    }


def test_from_claim_to_done_with_the_attempts_own_token(call: Call, served: Served) -> None:
    job = make_job(call, 2)
    got = claim(call, served, 2).json()
    definition = got["definitions"]["0"]
    assert (definition["title"], definition["script"]) == (job["title"], "true\n")
    assert [item["value"] for item in definition["variables"]] == ["1", "1"]
    first, second = got["instances"]
    body = {"t_id": first["job_id"], "inst_id": 1, "attempt": 1, "runner": "r1"}
    start = body | {"major_status": "Running", "minor_status": "PreparingJob", "sequence": 1}
    assert call("POST", "/jobstatus/", token=first["token"], json={"args": start}).json()["outcome"] == "applied"
    assert call("POST", "/jobstatus/", token=first["token"], json={"args": start}).json()["outcome"] == "repeated"
    thief = call("POST", "/jobstatus/", token=second["token"], json={"args": start})
    assert thief.status_code == 403
    twin = call("POST", "/jobstatus/", token=first["token"], json={"args": start | {"runner": "r2"}})
    assert (twin.status_code, twin.json()["stop"]) == (409, True)
    done = body | {"major_status": "Done", "minor_status": "ApplicationComplete", "sequence": 2, "log": "bye"}
    assert call("POST", "/jobstatus/", token=first["token"], json={"args": done}).status_code == 200
    back = call(
        "POST", "/jobstatus/", token=first["token"], json={"args": body | {"major_status": "Running", "sequence": 3}}
    )
    assert back.status_code == 409 and "Done cannot become Running" in back.json()["error"]
    shown = call("GET", f"/job/{job['slug']}/").json()["job"]
    assert (shown["counts"]["Done"], shown["counts"]["New"]) == (1, 1)
    detail = call("GET", f"/job/{job['slug']}/instances/1/").json()["instance"]
    assert [entry["status"] for entry in detail["status_history"]] == ["Running", "Done"]
    assert detail["log"] == "bye"


def test_bulk_reports_have_a_result_each(call: Call, served: Served) -> None:
    job = make_job(call, 2)
    claim(call, served, 1000)
    item = {"t_id": job["jobID"], "major_status": "Submitted", "attempt": 1, "sequence": 0}
    reports = [item | {"inst_id": 1}, item | {"inst_id": 99}, item | {"inst_id": 2, "attempt": 9}, {"inst_id": 1}]
    reply = call("POST", "/jobstatusBulk/", token=served.site_token, json={"reports": reports})
    results = reply.json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 404, 409, 422]
    assert (results[2]["stop"], "t_id" in results[3]["error"]) == (True, True)


def test_an_agent_learns_what_became_of_what_it_holds(call: Call, served: Served) -> None:
    job = make_job(call, 2)
    got = claim(call, served, 1000).json()["instances"]
    holds = [
        {"job_id": item["job_id"], "instance_id": item["instance_id"], "attempt": item["attempt"]} for item in got
    ]
    holds.append({"job_id": job["jobID"], "instance_id": 77, "attempt": 1})
    beat = {"site": "local", "agent": "a1", "hostname": "wn1", "version": "3", "holds": holds}
    answers = call("POST", "/agents/heartbeat/", token=served.site_token, json=beat).json()["answers"]
    assert answers[-3:] == ["adopt", "adopt", "unknown"]


def test_roll_back_in_bulk(call: Call, served: Served) -> None:
    job = make_job(call, 3)
    claim(call, served, 1000)
    item = {"t_id": job["jobID"], "attempt": 1, "sequence": 1, "major_status": "Failed"}
    call("POST", "/jobstatusBulk/", json={"reports": [item | {"inst_id": number} for number in (1, 2, 3)]})
    body = {"job": job["slug"], "n_min": 1, "override_dict": {"MetaData": [{"name": "A", "value": "2"}]}}
    assert call("POST", "/rollback/", json=body).json() == {"result": "ok", "rolled_back": 2}
    again = claim(call, served, 1000).json()
    assert [(found["instance_id"], found["attempt"]) for found in again["instances"]] == [(2, 2), (3, 2)]
    assert again["definitions"]["0"]["variables"][0]["value"] == "2"


@pytest.mark.parametrize(
    ("method", "path", "values", "status", "words"),
    [
        ("GET", "/job/nosuch/", {}, 404, "nosuch"),
        ("GET", "/nosuch/", {}, 404, "Not Found"),
        ("DELETE", "/job/", {}, 405, "Method Not Allowed"),
        ("GET", "/job/?limit=0", {}, 422, "limit"),
        ("GET", "/job/?before=xyz", {}, 422, "before"),
        ("POST", "/newjobs/", {"json": {"site": "local"}}, 422, "limit"),
        ("POST", "/newjobs/", {"data": b"{", "headers_": True}, 400, "JSON"),
        ("POST", "/job/", {"files": {"file": b"<Jobs/>"}}, 422, "line 1"),
        ("POST", "/job/", {"data": {"n_instances": 1}}, 400, "file"),
        ("POST", "/rollback/", {"json": {"job": "nosuch", "extra": 1}}, 422, "extra"),
        ("POST", "/jobInstances/", {"json": {"taskname": "x", "n_instances": -1}}, 422, "n_instances"),
        ("POST", "/job/", {"data": b"x" * (17 * 1024 * 1024)}, 413, "Too Large"),
    ],
)
def test_bad_input_is_said_plainly(
    served: Served, method: str, path: str, values: dict[str, Any], status: int, words: str
) -> None:
    headers = {"Authorization": f"Bearer {served.admin_token}"}
    if values.pop("headers_", False):
        headers["Content-Type"] = "application/json"
    reply = requests.request(method, served.url + path, headers=headers, timeout=60, **values)
    assert reply.status_code == status, reply.text
    assert reply.json()["result"] == "nok"
    assert words in reply.json()["error"] and "\n" not in reply.json()["error"]


def test_creating_a_job_in_a_request_that_is_partly_bad_makes_nothing(call: Call) -> None:
    two = b"""<Jobs><Job name="good-one"><JobWrapper executable="bash">x</JobWrapper></Job>
    <Job name="bad-one" site="NOWHERE"><JobWrapper executable="bash">x</JobWrapper></Job></Jobs>"""
    assert call("POST", "/job/", files={"file": two}).status_code == 422
    assert call("GET", "/job/?title=good-one").json()["jobs"] == []


def test_a_check_answers_with_every_problem_or_a_preview(call: Call, served: Served) -> None:
    bad = b"<Jobs>\n<Job type='No'><JobWrapper executable='bash'>x</JobWrapper></Job></Jobs>"
    reply = call("POST", "/job/check/", token=served.submit_token, files={"file": bad}, data={"depends": "nosuch"})
    assert reply.status_code == 200 and reply.json()["valid"] is False
    assert [problem["line"] for problem in reply.json()["problems"]] == [None, 2, 2]
    parent = make_job(call, 2)
    fields = {
        "depends": parent["slug"],
        "n_instances": 2,
        "override_dict": "{'MetaData': [{'name': 'B', 'value': '7'}]}",
    }
    checked = call("POST", "/job/check/", files={"file": XML % b"only-checked"}, data=fields).json()
    assert (checked["valid"], checked["problems"], checked["warnings"]) == (True, [], [])
    job = checked["jobs"][0]
    assert job["variables"] == [{"name": "A", "value": "7"}, {"name": "B", "value": "7"}]
    assert job["parents"] == [{"slug": parent["slug"], "title": parent["title"]}]
    assert {"name": "DWF_INSTANCE_ID", "value": "1"} in job["automatic"]
    assert served.database.jobs.count_documents({"title": "only-checked"}) == 0


def test_lists_are_paged_by_key(call: Call) -> None:
    jobs = [make_job(call, 5)["slug"] for _ in range(3)]
    first = call("GET", "/job/?limit=2").json()
    second = call("GET", f"/job/?limit=2&before={first['next']}").json()
    assert [job["slug"] for job in first["jobs"]] == [jobs[2], jobs[1]]
    assert second["jobs"][0]["slug"] == jobs[0]
    page = call("GET", f"/job/{jobs[0]}/instances/?limit=3&after=1").json()
    assert [row["instance_id"] for row in page["instances"]] == [2, 3, 4] and page["next"] == 4


def test_two_workers_give_no_instance_twice(call: Call, served: Served) -> None:
    claim(call, served, 1000)  # what other tests left
    job = make_job(call, 200)
    start = threading.Barrier(8)

    def ask(_: int) -> list[tuple[str, int]]:
        start.wait()
        found = claim(call, served, 25).json()["instances"]
        return [(item["job_id"], item["instance_id"]) for item in found]

    with ThreadPoolExecutor(8) as pool:
        taken = [item for found in pool.map(ask, range(8)) for item in found]
    assert sorted(taken) == [(job["jobID"], number) for number in range(1, 201)]


# Who may do what: written down here apart from the code. "-" is no credential.
ROUTES: list[tuple[str, str, str]] = [
    ("GET", "/health", "- admin submit read site attempt"),
    ("GET", "/schema/job.xsd", "- admin submit read site attempt"),
    ("GET", "/whoami/", "admin submit read site attempt"),
    ("GET", "/openapi.json", "admin submit read site attempt"),
    ("POST", "/testDB/", "admin submit read site attempt"),
    ("GET", "/testDB/", "admin submit read site"),
    ("GET", "/job/", "admin submit read site"),
    ("GET", "/job/nosuch/", "admin submit read site"),
    ("GET", "/job/nosuch/instances/", "admin submit read site"),
    ("GET", "/job/nosuch/instances/1/", "admin submit read site"),
    ("GET", "/job/nosuch/export/", "admin submit read site"),
    ("GET", "/jobstatus/", "admin submit read site"),
    ("GET", "/datacat/", "admin submit read site"),
    ("GET", "/datacat/files/", "admin submit read site"),
    ("GET", "/statistics/work/", "admin submit read site"),
    ("GET", "/statistics/ends/", "admin submit read site"),
    ("GET", "/statistics/failures/", "admin submit read site"),
    ("GET", "/statistics/sites/", "admin submit read site"),
    ("GET", "/statistics/hosts/", "admin submit read site"),
    ("GET", "/statistics/agents/", "admin submit read site"),
    ("GET", "/statistics/beats/", "admin submit read site"),
    ("GET", "/statistics/jobs/nosuch/progress/", "admin submit read site"),
    ("GET", "/statistics/jobs/nosuch/ends/", "admin submit read site"),
    ("GET", "/statistics/jobs/nosuch/distribution/cpu/", "admin submit read site"),
    ("GET", "/statistics/jobs/nosuch/failures/hostname/", "admin submit read site"),
    ("GET", "/statistics/jobs/nosuch/instances/1/cpu/", "admin submit read site"),
    ("POST", "/job/", "admin submit"),
    ("POST", "/job/check/", "admin submit"),
    ("POST", "/jobInstances/", "admin submit"),
    ("POST", "/rollback/", "admin submit"),
    ("POST", "/kill/", "admin submit"),
    ("PATCH", "/job/nosuch/", "admin submit"),
    ("DELETE", "/job/nosuch/", "admin submit"),
    ("POST", "/job/nosuch/clone/", "admin submit"),
    ("GET", "/newjobs/", "admin site"),
    ("POST", "/newjobs/", "admin site"),
    ("POST", "/agents/heartbeat/", "admin site"),
    ("GET", "/watchdog/", "admin site"),
    ("POST", "/jobstatus/", "admin submit site attempt"),
    ("POST", "/jobstatusBulk/", "admin submit site attempt"),
    ("POST", "/datacat/", "admin submit site attempt"),
    ("GET", "/administration/tokens/", "admin"),
    ("POST", "/administration/tokens/", "admin"),
    ("POST", "/administration/tokens/revoke/", "admin"),
    ("GET", "/administration/users/", "admin"),
    ("POST", "/administration/users/", "admin"),
    ("POST", "/administration/users/password/", "admin"),
    ("POST", "/administration/users/remove/", "admin"),
    ("GET", "/administration/words/", "admin"),
    ("GET", "/administration/health/", "admin"),
    ("GET", "/administration/maintenance/", "admin"),
    ("POST", "/administration/maintenance/", "admin"),
    ("GET", "/administration/audit/", "admin"),
]


@pytest.mark.parametrize(("method", "path", "roles"), ROUTES)
def test_every_route_with_every_role(call: Call, served: Served, method: str, path: str, roles: str) -> None:
    make_job(call, 1)
    attempt = claim(call, served, 1).json()["instances"][0]["token"]
    tokens = {role: getattr(served, f"{role}_token") for role in ("admin", "submit", "read", "site")}
    allowed = set()
    for role, token in (tokens | {"attempt": attempt, "-": None}).items():
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body: dict[str, Any] = {"params" if method == "GET" else "json": {"site": "local"}}
        reply = requests.request(method, served.url + path, headers=headers, timeout=60, **body)
        if reply.status_code not in (401, 403):
            allowed.add(role)
    assert allowed == set(roles.split())


def _described(path: str) -> str:
    """Return a path of the table as the description names it."""
    for part, named in (
        ("nosuch", "{slug}"), ("/instances/1/", "/instances/{number}/"), ("/cpu/", "/{quantity}/"),
        ("/failures/hostname/", "/failures/{by}/"),
    ):  # fmt: skip
        path = path.replace(part, named)
    return path


def test_no_route_is_missing_from_the_table_or_the_description(call: Call) -> None:
    document = call("GET", "/openapi.json").json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    tested = {(method, _described(path)) for method, path, _ in ROUTES}
    assert described == tested


def test_auth_off_is_said_loudly(mongod: EmbeddedMongod, tmp_path: Path) -> None:
    for open_server in serve(mongod, tmp_path, auth="off"):
        assert requests.get(f"{open_server.url}/health", timeout=30).json()["auth"] == "off"
        assert requests.get(f"{open_server.url}/job/", timeout=30).status_code == 200
    assert "auth = off: everybody who reaches this server may do everything" in (tmp_path / "server.log").read_text()
