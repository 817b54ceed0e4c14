"""The API fuzzed from its own description: the server never fails, and answers as it is described."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from bson import ObjectId
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from DmpWorkflow.core.database import credentials
from tests.served import Served

CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance]
EXAMPLES = 15  # for each operation, of an administrator
EXAMPLES_OF_OTHERS = 3
SEED = int(os.environ.get("DAMPE_FUZZ_SEED", "2026"))


@pytest.fixture(scope="module")
def schema(served: Served) -> Iterator[schemathesis.BaseSchema]:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    yield schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=token)


def test_the_description_is_valid_openapi(served: Served) -> None:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    document = requests.get(f"{served.url}/openapi.json", headers=token, timeout=30).json()
    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")


def fuzz_all(
    schema: schemathesis.BaseSchema,
    token: str,
    examples: int,
    mode: schemathesis.GenerationMode = schemathesis.GenerationMode.POSITIVE,
) -> None:
    """Send requests of every kind with a token."""
    print(f"seed {SEED}")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    seen = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        seen += 1

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.seed(SEED)
        def fuzz(case: "schemathesis.Case[Any]") -> None:
            case.call_and_validate(headers=headers, checks=CHECKS)

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with what takes nothing
            fuzz()
    assert seen > 20


def test_the_server_never_fails_and_answers_as_described(schema: schemathesis.BaseSchema, served: Served) -> None:
    fuzz_all(schema, served.admin_token, EXAMPLES)


@pytest.mark.parametrize("role", ["submit", "read", "site", "attempt", "nobody"])
def test_the_server_fails_for_nobody(role: str, schema: schemathesis.BaseSchema, served: Served) -> None:
    job, number = str(ObjectId()), 1
    attempt = credentials.attempt_token(credentials.secret(served.database), job, number, 1)
    tokens = {"submit": served.submit_token, "read": served.read_token, "site": served.site_token}
    tokens |= {"attempt": attempt, "nobody": ""}
    fuzz_all(schema, tokens[role], EXAMPLES_OF_OTHERS)


def test_the_server_never_fails_at_what_its_description_forbids(
    schema: schemathesis.BaseSchema, served: Served
) -> None:
    fuzz_all(schema, served.submit_token, EXAMPLES_OF_OTHERS, schemathesis.GenerationMode.NEGATIVE)


XML = b"""<Jobs><Job name="described" type="User"><MetaData><Var name="A" value="1"/></MetaData>
<OutputFiles><File source="a" target="/b"/></OutputFiles><JobWrapper executable="bash">x</JobWrapper></Job></Jobs>"""


def test_replies_to_good_requests_are_as_described(schema: schemathesis.BaseSchema, served: Served) -> None:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    seen: set[str] = set()

    def send(method: str, path: str, described: str = "", **values: Any) -> Any:
        reply = requests.request(method, served.url + path, headers=token, timeout=30, **values)
        assert reply.status_code == 200, reply.text
        schema[described or path][method].validate_response(reply)
        seen.add(f"{method} {described or path}")
        return reply.json()

    made = send("POST", "/job/", files={"file": XML}, data={"n_instances": 3})["jobs"][0]
    assert send("POST", "/job/check/", files={"file": XML}, data={"n_instances": 3})["jobs"]
    send("POST", "/jobInstances/", json={"taskname": "described", "n_instances": 1})
    claim = {"site": "local", "limit": 3, "agent": "a", "request_id": "described-1"}
    first = send("POST", "/newjobs/", json=claim)["instances"][0]
    assert send("GET", "/newjobs/", params={"site": "local", "limit": 1})["jobs"]
    send("GET", "/newjobs/", params={"site": "local", "fastQuery": "True"})
    report = {"t_id": first["job_id"], "inst_id": 1, "attempt": 1, "sequence": 1, "major_status": "Running", "cpu": 1}
    send("POST", "/jobstatus/", json={"args": report | {"memory": 2, "cpu_max": 3, "batchId": 7, "log": "x"}})
    send("POST", "/jobstatusBulk/", json={"reports": [report, report | {"inst_id": 99}, {}]})
    assert send("GET", "/watchdog/", params={"site": "local"})["jobs"]
    hold = {"job_id": first["job_id"], "instances": [1], "attempt": 1}
    beat = {"site": "local", "agent": "a", "hostname": "h", "version": "3", "holds": [hold]}
    send("POST", "/agents/heartbeat/", json=beat)
    send("POST", "/testDB/", json={"hostname": "h"})
    send("GET", "/testDB/")
    slug = made["slug"]
    assert send("GET", "/job/")["jobs"]
    send("GET", f"/job/{slug}/", "/job/{slug}/")
    assert send("GET", f"/job/{slug}/instances/", "/job/{slug}/instances/")["instances"]
    assert len(send("GET", f"/job/{slug}/export/", "/job/{slug}/export/", params={"format": "json"})) == 4
    assert send("GET", "/jobstatus/", params={"title": "described", "type": "User"})["jobs"]
    send("POST", "/rollback/", json={"job": slug, "instances": [1]})
    detail = send("GET", f"/job/{slug}/instances/1/", "/job/{slug}/instances/{number}/")["instance"]
    assert detail["attempts"]
    assert send("POST", "/kill/", json={"job": slug, "instances": [1]})["ended"] == 1
    changed = send("PATCH", f"/job/{slug}/", "/job/{slug}/", json={"priority": 1, "tags": ["a"]})["job"]
    assert changed["tags"] == ["a"]
    copy = send("POST", f"/job/{slug}/clone/", "/job/{slug}/clone/", json={"title": "copy"})["jobs"][0]["slug"]
    send("DELETE", f"/job/{copy}/", "/job/{slug}/", json={"confirm": "copy"})
    send("POST", "/datacat/", json={"filename": "/a", "site": "local", "action": "register"})
    assert send("GET", "/datacat/")["files"]
    admin = "/administration"
    assert send("POST", f"{admin}/tokens/", json={"name": "t", "role": "site", "site": "local"})["token"]
    assert send("GET", f"{admin}/tokens/")["tokens"]
    send("POST", f"{admin}/tokens/revoke/", json={"name": "t"})
    send("POST", f"{admin}/users/", json={"name": "u", "role": "read", "password": "a long password"})
    assert send("GET", f"{admin}/users/")["users"]
    send("POST", f"{admin}/users/password/", json={"name": "u", "password": "another password"})
    for word in ("disable", "enable", "remove"):
        send("POST", f"{admin}/users/{word}/", json={"name": "u"})
    assert send("GET", f"{admin}/words/")["sites"]
    assert send("GET", f"{admin}/health/")["database"]["members"]
    assert send("POST", f"{admin}/maintenance/", json={"action": "compare-counts"})["action"]["ended"]
    assert send("GET", f"{admin}/maintenance/")["actions"]
    assert send("GET", f"{admin}/audit/")["rows"]
    assert send("GET", "/datacat/files/")["files"]
    failed = {
        "t_id": first["job_id"],
        "inst_id": 2,
        "attempt": 1,
        "cpu": 5,
        "memory": 6,
        "hostname": "wn1",
        "mem_max": 9,
    }
    for sequence, status in ((1, "Running"), (2, "Failed")):
        report = failed | {"sequence": sequence, "major_status": status, "minor_status": "m", "log": "why"}
        send("POST", "/jobstatus/", json={"args": report})
    for name in ("work", "ends"):
        assert send("GET", f"/statistics/{name}/")["series"]
    assert send("GET", "/statistics/sites/")["sites"]
    assert send("GET", "/statistics/agents/")["agents"]
    one = {"site": "local"}
    deadline = time.monotonic() + 60  # others may have asked a moment ago: such answers are shared for some seconds
    while not (
        send("GET", "/statistics/failures/")["failures"] and send("GET", "/statistics/hosts/", params=one)["hosts"]
    ):
        assert time.monotonic() < deadline, "what failed is not told"
    assert send("GET", "/statistics/beats/", params={"site": "local"})["series"]
    of_job = "/statistics/jobs/{slug}/"
    for name, described in (
        ("progress", "progress"), ("ends", "ends"), ("distribution/memory", "distribution/{quantity}"),
        ("failures/last_line", "failures/{by}"), ("instances/2/cpu", "instances/{number}/{quantity}"),
    ):  # fmt: skip
        send("GET", f"{of_job.format(slug=slug)}{name}/", f"{of_job}{described}/")
    for path in ("/health", "/whoami/", "/openapi.json"):
        send("GET", path)
    every = {f"{method.upper()} {path}" for path, item in schema.raw_schema["paths"].items() for method in item}
    assert every - seen == {"GET /schema/job.xsd"}
