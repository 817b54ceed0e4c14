"""Who may do what: every route with every role, against a table that is written down here, apart from the code."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.frontend.access import Right
from tests.api.house import ABROAD, AT_HOME, House, build

# stranger: submits, but not this job; owner: submitted it; site: the job's site; elsewhere: another site;
# cookie: an administrator with a session and no token; old: no credential, from a network with auth = optional.
TABLE = """
                                                                    anybody attempt read stranger owner site elsewhere operator admin cookie old
GET    /health                                                         x       x     x      x       x    x       x        x       x      x    x
GET    /schema/job.xsd                                                 x       x     x      x       x    x       x        x       x      x    x
GET    /static/<path:filename>                                         x       x     x      x       x    x       x        x       x      x    x
GET    /login                                                          x       x     x      x       x    x       x        x       x      x    x
POST   /login                                                          x       x     x      x       x    x       x        x       x      x    x
POST   /logout                                                         x       x     x      x       x    x       x        x       x      x    x
GET    /whoami/                                                        .       x     x      x       x    x       x        x       x      x    .
GET    /openapi.json                                                   .       x     x      x       x    x       x        x       x      x    .
POST   /testDB/                                                        .       .     .      x       x    x       x        x       x      .    x
GET    /testDB/                                                        .       .     x      x       x    x       x        x       x      x    x
GET    /job/                                                           .       .     x      x       x    x       .        x       x      x    .
GET    /job/<slug>/                                                    .       .     x      x       x    x       .        x       x      x    .
GET    /job/<slug>/instances/                                          .       .     x      x       x    x       .        x       x      x    .
GET    /job/<slug>/instances/<int:number>/                             .       .     x      x       x    x       .        x       x      x    .
GET    /job/<slug>/export/                                             .       .     x      x       x    x       .        x       x      x    .
GET    /jobstatus/                                                     .       .     x      x       x    x       x        x       x      x    x
GET    /datacat/                                                       .       .     x      x       x    x       .        x       x      x    x
GET    /datacat/files/                                                 .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/work/                                               .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/ends/                                               .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/failures/                                           .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/sites/                                              .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/hosts/                                              .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/agents/                                             .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/beats/                                              .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/jobs/<slug>/progress/                               .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/jobs/<slug>/ends/                                   .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/jobs/<slug>/distribution/<any:quantity>/            .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/jobs/<slug>/failures/<any:by>/                      .       .     x      x       x    x       .        x       x      x    .
GET    /statistics/jobs/<slug>/instances/<int:number>/<any:quantity>/  .       .     x      x       x    x       .        x       x      x    .
POST   /job/                                                           .       .     .      x       x    .       .        x       x      .    x
POST   /job/check/                                                     .       .     .      x       x    .       .        x       x      .    .
POST   /job/<slug>/clone/                                              .       .     .      x       x    .       .        x       x      .    .
POST   /jobInstances/                                                  .       .     .      .       x    .       .        x       x      .    .
POST   /rollback/                                                      .       .     .      .       x    .       .        x       x      .    .
POST   /kill/                                                          .       .     .      .       x    .       .        x       x      .    .
PATCH  /job/<slug>/                                                    .       .     .      .       x    .       .        x       x      .    .
DELETE /job/<slug>/                                                    .       .     .      .       x    .       .        x       x      .    .
GET    /newjobs/                                                       .       .     .      .       .    x       .        .       x      .    x
POST   /newjobs/                                                       .       .     .      .       .    x       .        .       x      .    .
POST   /agents/heartbeat/                                              .       .     .      .       .    x       .        .       x      .    .
GET    /watchdog/                                                      .       .     .      .       .    x       .        .       x      .    x
POST   /jobstatus/                                                     .       x     .      .       x    x       .        x       x      .    x
POST   /jobstatusBulk/                                                 .       x     .      .       x    x       .        x       x      .    x
POST   /datacat/                                                       .       x     .      x       x    x       .        x       x      .    x
GET    /administration/words/                                          .       .     .      .       .    .       .        x       x      .    .
GET    /administration/health/                                         .       .     .      .       .    .       .        x       x      .    .
GET    /administration/maintenance/                                    .       .     .      .       .    .       .        x       x      .    .
GET    /administration/audit/                                          .       .     .      .       .    .       .        x       x      .    .
POST   /administration/maintenance/                                    .       .     .      .       .    .       .        x       x      .    .
GET    /administration/tokens/                                         .       .     .      .       .    .       .        .       x      .    .
POST   /administration/tokens/                                         .       .     .      .       .    .       .        .       x      .    .
POST   /administration/tokens/revoke/                                  .       .     .      .       .    .       .        .       x      .    .
GET    /administration/users/                                          .       .     .      .       .    .       .        .       x      .    .
POST   /administration/users/                                          .       .     .      .       .    .       .        .       x      .    .
POST   /administration/users/password/                                 .       .     .      .       .    .       .        .       x      .    .
POST   /administration/users/disable/                                  .       .     .      .       .    .       .        .       x      .    .
POST   /administration/users/enable/                                   .       .     .      .       .    .       .        .       x      .    .
POST   /administration/users/remove/                                   .       .     .      .       .    .       .        .       x      .    .
GET    /                                                               .       .     x      x       x    x       .        x       x      x    .
GET    /jobs/                                                          .       .     x      x       x    x       x        x       x      x    .
GET    /jobs/<slug>                                                    .       .     x      x       x    x       .        x       x      x    .
GET    /jobs/<slug>/failures                                           .       .     x      x       x    x       .        x       x      x    .
GET    /jobs/<slug>/job.xml                                            .       .     x      x       x    x       .        x       x      x    .
GET    /jobs/<slug>/<int:number>                                       .       .     x      x       x    x       .        x       x      x    .
GET    /jobs/<slug>/<int:number>/log                                   .       .     x      x       x    x       .        x       x      x    .
GET    /sites/                                                         .       .     x      x       x    x       x        x       x      x    .
GET    /sites/<name>                                                   .       .     x      x       x    x       .        x       x      x    .
GET    /catalogue/                                                     .       .     x      x       x    x       x        x       x      x    .
GET    /catalogue/files.<kind>                                         .       .     x      x       x    x       x        x       x      x    .
POST   /catalogue/status                                               .       .     .      x       x    x       x        x       x      x    .
POST   /catalogue/remove                                               .       .     .      x       x    x       x        x       x      x    .
GET    /submit/                                                        .       .     .      x       x    .       .        x       x      x    .
POST   /submit/                                                        .       .     .      x       x    .       .        x       x      x    .
POST   /submit/check                                                   .       .     .      x       x    .       .        x       x      x    .
POST   /jobs/<slug>/instances                                          .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/rollback                                           .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/kill                                               .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/change                                             .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/archive                                            .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/pause                                              .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/remove                                             .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/<int:number>/rollback                              .       .     .      .       x    .       .        x       x      x    .
POST   /jobs/<slug>/<int:number>/kill                                  .       .     .      .       x    .       .        x       x      x    .
GET    /admin/                                                         .       .     .      .       .    .       .        x       x      x    .
GET    /admin/audit                                                    .       .     .      .       .    .       .        x       x      x    .
POST   /admin/maintenance                                              .       .     .      .       .    .       .        x       x      x    .
POST   /admin/tokens                                                   .       .     .      .       .    .       .        .       x      x    .
POST   /admin/tokens/revoke                                            .       .     .      .       .    .       .        .       x      x    .
POST   /admin/users                                                    .       .     .      .       .    .       .        .       x      x    .
POST   /admin/users/password                                           .       .     .      .       .    .       .        .       x      x    .
POST   /admin/users/disable                                            .       .     .      .       .    .       .        .       x      x    .
POST   /admin/users/enable                                             .       .     .      .       .    .       .        .       x      x    .
POST   /admin/users/remove                                             .       .     .      .       .    .       .        .       x      x    .
"""  # noqa: E501 - a table
HEAD, *ROWS = TABLE.strip().splitlines()
COLUMNS = HEAD.split()
EXPECTED = {tuple(row.split()[:2]): row.split()[2:] for row in ROWS}
ROOT = Path(__file__).parents[2]
HELD = 1  # the instance whose attempt is under way
NONE = 999  # of an instance that there is not


@pytest.fixture(scope="module")
def house(mongod: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from build(mongod, tmp_path_factory.mktemp("house"))


def request_of(house: House, method: str, rule: str) -> tuple[str, dict[str, Any]]:
    """Return path and content of a request that changes nothing, and that nothing but its sender stands against."""
    job = house.job
    values = {"slug": job["slug"], "number": str(HELD), "quantity": "cpu", "by": "hostname", "kind": "csv"}
    values |= {"name": "local", "filename": "style.css"}
    path = re.sub(r"<(?:[^:>]*:)?(\w+)>", lambda found: values[found[1]], rule)
    report = {"t_id": str(job["_id"]), "inst_id": HELD, "attempt": 1, "sequence": 1, "major_status": "Running"}
    claim = {"site": "local", "limit": 1, "agent": "agent", "request_id": uuid.uuid4().hex}
    beat = {"site": "local", "agent": "agent", "hostname": "wn1", "version": "3"}
    chosen = {"job": job["slug"], "instances": [NONE]}
    special: dict[str, dict[str, Any]] = {
        "POST /login": {"data": {"token": house.tokens["read"]}},
        "POST /testDB/": {"json": {"hostname": "wn1"}},
        "POST /jobInstances/": {"json": {"taskname": job["title"], "n_instances": 0}},
        "POST /rollback/": {"json": chosen},
        "POST /kill/": {"json": chosen},
        "PATCH /job/<slug>/": {"json": {"nonsense": 1}},
        "DELETE /job/<slug>/": {"json": {"confirm": "not its title"}},
        "GET /jobstatus/": {"query_string": {"title": job["title"], "type": "User"}},
        "POST /newjobs/": {"json": claim},
        "POST /agents/heartbeat/": {"json": beat},
        "POST /jobstatus/": {"json": {"args": report}},
        "POST /jobstatusBulk/": {"json": {"reports": [report]}},
        "POST /datacat/": {"json": {"filename": "/a", "site": "local", "action": "register"}},
        "POST /jobs/<slug>/rollback": {"data": {"which": "numbers", "numbers": str(NONE)}},
        "POST /jobs/<slug>/kill": {"data": {"which": "numbers", "numbers": str(NONE)}},
        "POST /jobs/<slug>/<int:number>/rollback": {"data": {"variables": "no assignment"}},
    }
    if rule == "/jobs/<slug>/<int:number>/kill":
        path = f"/jobs/{job['slug']}/{NONE}/kill"
    if method == "GET":
        return path, special.get(f"GET {rule}", {"query_string": {"site": "local"}})
    default: dict[str, Any] = {"json": {}} if rule.startswith(("/administration", "/job/")) else {"data": {}}
    return path, special.get(f"{method} {rule}", default)


def is_allowed(reply: TestResponse) -> bool:
    """Say whether somebody may do that: whatever else may be wrong with it, the answer is not about who asks."""
    assert reply.status_code < 500, reply.text
    if reply.is_json and isinstance(reply.json, dict) and "results" in reply.json:
        return reply.json["results"][0].get("status") not in (401, 403)
    to_login = reply.status_code == 303 and reply.headers["Location"].startswith("/login")
    return reply.status_code not in (401, 403) and not to_login


@pytest.mark.parametrize(("method", "rule"), EXPECTED, ids=map(" ".join, EXPECTED))
def test_every_route_with_every_role(house: House, method: str, rule: str) -> None:
    path, content = request_of(house, method, rule)
    found = []
    for column in COLUMNS:
        client = house.logged_in(token=house.tokens["admin"]) if column == "cookie" else house.client()
        token = house.tokens.get(column)
        reply = client.open(
            path,
            method=method,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            environ_base={"REMOTE_ADDR": AT_HOME if column == "old" else ABROAD},
            **content,
        )
        found.append("x" if is_allowed(reply) else ".")
        reply.close()
    assert dict(zip(COLUMNS, found, strict=True)) == dict(zip(COLUMNS, EXPECTED[method, rule], strict=True))


def test_the_table_has_every_route(house: House) -> None:
    routes = {
        (method, re.sub(r"any\([^)]*\)", "any", rule.rule))  # without the words that it takes
        for rule in house.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(EXPECTED) == routes


def test_every_route_of_the_api_is_described(house: House) -> None:
    document = house.ask("GET", "/openapi.json", house.tokens["read"]).json
    assert document is not None
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    pages = {rule.rule for rule in house.app.url_map.iter_rules() if rule.endpoint.startswith("pages.")}
    ours = {(method, re.sub(r"<(?:[^:>]*:)?(\w+)>", r"{\1}", rule)) for method, rule in EXPECTED if rule not in pages}
    assert described == ours


def test_the_documented_rights_are_those_in_force() -> None:
    columns = ["anybody", "attempt", "read", "submit", "site", "operator", "admin"]
    table = (ROOT / "docs/security.md").read_text().partition("<!-- rights -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    documented = {name: dict(zip(columns, marks, strict=True)) for name, _, *marks in rows}
    assert documented == {right.name: {role: _mark(right, role) for role in columns} for right in Right}


def _mark(right: Right, role: str) -> str:
    if right is Right.PUBLIC:
        return "yes"
    return "own" if right.value.only_own(role) else "yes" if role in right.value else ""
