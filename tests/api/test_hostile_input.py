"""Requests that are meant to hurt: refused in one line with the place and the reason, and nothing is changed."""

import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.core.database import counts, creation, documents, jobs, rollback
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.resolution import Resolver
from DmpWorkflow.core.database.status_report import HISTORY_LIMIT, LOG_LIMIT
from DmpWorkflow.core.database.submission import Submission, Words, submit_xml
from DmpWorkflow.core.job_xml import parse_jobs
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput
from tests.served import Served

XML = """<Jobs><Job name="%s" type="User"><MetaData><Var name="A" value="$B"/></MetaData>
<JobWrapper executable="bash">true</JobWrapper></Job></Jobs>"""
Call = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def call(served: Served) -> Call:
    def send(method: str, path: str, token: str = "", **values: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or served.admin_token}"} | values.pop("headers", {})
        return requests.request(
            method, served.url + path, headers=headers, timeout=60, allow_redirects=False, **values
        )

    return send


@pytest.fixture(scope="module")
def job(call: Call, served: Served) -> dict[str, Any]:
    """A job with two instances, both claimed."""
    reply = call("POST", "/job/", files={"file": XML % "attacked"}, data={"n_instances": 2})
    made: dict[str, Any] = reply.json()["jobs"][0]
    claim = {"site": "local", "limit": 2, "agent": "a", "request_id": uuid.uuid4().hex}
    assert len(call("POST", "/newjobs/", json=claim).json()["instances"]) == 2
    return made


def content(database: Database) -> dict[str, str]:
    """Return a digest of each collection; of credentials, that they were used is noted all the time."""
    found = database.jobs.database.command("dbHash")["collections"]
    return {name: digest for name, digest in found.items() if name != "credential"}


REPORT = '{"args": {"t_id": "JOB_ID", "inst_id": 1, "attempt": 1, "sequence": 1, "major_status": "Running", %s}}'
ROLL_BACK = '{"job": "SLUG", "instances": [1], %s}'
MADE = '{"taskname": "attacked", %s}'
USER = '{"name": "u", "role": "read", "password": "%s"}'
AS_JSON: dict[str, tuple[str, str]] = {
    "operator for a name": ("/jobInstances/", '{"taskname": {"$gt": ""}}'),
    "operator for a job": ("/rollback/", '{"job": {"$ne": null}}'),
    "operator for a number": ("/jobInstances/", MADE % '"n_instances": {"$gt": 0}'),
    "operator for a user": ("/administration/users/password/", '{"name": {"$gt": ""}, "password": "long enough"}'),
    "operator in a list": ("/kill/", '{"job": "x", "instances": [{"$gt": 0}]}'),
    "keys of objects": ("/rollback/", ROLL_BACK % '"override_dict": {"__proto__": {}}'),
    "keys with dots": ("/rollback/", ROLL_BACK % '"override_dict": {"MetaData.0": {}}'),
    "keys unknown": ("/rollback/", ROLL_BACK % '"$where": "1"'),
    "half a character in an override": (
        "/rollback/",
        ROLL_BACK % '"override_dict": {"MetaData": [{"name": "A", "value": "\\ud800"}]}',
    ),
    "half a character in a word": ("/jobstatus/", REPORT % '"minor_status": "\\ud800"'),
    "half a character in a name": ("/administration/tokens/", '{"name": "a\\ud800", "role": "read"}'),
    "half a character in a password": ("/administration/users/", USER % "a long pass\\ud800"),
    "half a character in a file": ("/datacat/", '{"filename": "/\\ud800", "site": "local", "action": "register"}'),
    "terminal commands": ("/datacat/", '{"filename": "/\\u001b[2J", "site": "local", "action": "register"}'),
    "NUL": ("/jobstatus/", REPORT % '"hostname": "a\\u0000"'),
    "truth for a number": ("/jobInstances/", MADE % '"n_instances": true'),
    "truth for an instance": ("/jobstatus/", REPORT.replace('"inst_id": 1', '"inst_id": true') % '"cpu": 1'),
    "truth for an amount": ("/jobstatus/", REPORT % '"cpu": true'),
    "no number": ("/jobstatus/", REPORT % '"cpu": NaN'),
    "no end": ("/jobstatus/", REPORT % '"memory": Infinity'),
    "a float beyond all": ("/jobstatus/", REPORT % '"cpu": 1e999'),
    "a float that no sum holds": ("/jobstatus/", REPORT % '"cpu": 1e300'),
    "events that no sum holds": ("/jobstatus/", REPORT % f'"Nevents": {2**63 - 1}'),
    "more than 64 bits": ("/jobInstances/", MADE % f'"instanceId": {2**63}'),
    "5000 digits": ("/jobInstances/", MADE % f'"n_instances": {"9" * 5000}'),
    "a fraction": ("/jobInstances/", MADE % '"n_instances": 1.5'),
    "nested without end": ("/jobInstances/", "[" * 100_000),
    "nested in a value": ("/rollback/", ROLL_BACK % f'"override_dict": {"[" * 900}{"]" * 900}'),
    "no object": ("/jobInstances/", "[]"),
    "no JSON": ("/jobInstances/", "{'taskname': 'attacked'}"),
    "a circle by an override": (
        "/rollback/",
        ROLL_BACK % '"override_dict": {"MetaData": [{"name": "B", "value": "$A"}]}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", AS_JSON)
def test_hostile_json(what: str, call: Call, served: Served, job: dict[str, Any]) -> None:
    path, body = AS_JSON[what]
    body = body.replace("JOB_ID", job["jobID"]).replace("SLUG", job["slug"])
    before = content(served.database)
    reply = call("POST", path, data=body.encode(), headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 404, 422), reply.text
    assert reply.json()["result"] == "nok"
    assert 0 < len(reply.json()["error"]) < 500 and reply.json()["error"].isprintable()
    assert content(served.database) == before


def override(value: str) -> dict[str, str]:
    return {"taskname": "attacked", "override_dict": f"{{'MetaData': [{{'name': 'X', 'value': {value}}}]}}"}


AS_FORM: dict[str, tuple[str, dict[str, str]]] = {
    "a number of 6000 digits": ("/jobInstances/", override("0x" + "f" * 6000)),
    "half a character": ("/jobInstances/", override("'\\ud800'")),
    "NUL": ("/jobInstances/", override("'\\0'")),
    "bytes": ("/jobInstances/", override("b'a'")),
    "a call": ("/jobInstances/", override("print(1)")),
    "a name for a shell": ("/jobInstances/", override("1") | {"override_dict": "{'MetaData': [{'name': 'A;id'}]}"}),
    "a report nested without end": ("/jobstatus/", {"args": "[" * 10_000}),
    "reports nested without end": ("/jobstatusBulk/", {"data": "[" * 100_000, "status": "Done"}),
    "reports that are none": ("/jobstatusBulk/", {"data": "[1]", "status": "Done"}),
}  # fmt: skip


@pytest.mark.parametrize("what", AS_FORM)
def test_hostile_forms(what: str, call: Call, served: Served, job: dict[str, Any]) -> None:
    path, form = AS_FORM[what]
    before = content(served.database)
    reply = call("POST", path, data=form).json()
    assert reply["result"] == "nok" and reply["error"].isprintable() and len(reply["error"]) < 500
    assert "its log says why" not in reply["error"]
    assert content(served.database) == before


@pytest.mark.parametrize(
    "attributes",
    [
        'name="%s"' % ("0" * 300),
        'name=".outbox"',
        'name="&#x202e;gnp"',
        'name="../../etc"',
        'name="a" priority="%s"' % ("9" * 5000),
    ],
)
def test_hostile_jobs(attributes: str, call: Call, served: Served) -> None:
    before = content(served.database)
    xml = f'<Jobs><Job name="fine" type="User">{WRAPPER}</Job><Job type="User" {attributes}>{WRAPPER}</Job></Jobs>'
    reply = call("POST", "/job/", files={"file": xml}).json()
    assert reply["result"] == "nok" and reply["error"].isprintable()
    assert re.match(r"line 1: |name ", reply["error"])
    assert content(served.database) == before


WRAPPER = '<JobWrapper executable="b">x</JobWrapper>'


@pytest.mark.parametrize("variable", ["CPUTIME", "MEMORY"])
def test_limits_without_bounds_are_a_warning_and_no_failure(variable: str, call: Call) -> None:
    value = f'<MetaData><Var name="BATCH_OVERRIDE_{variable}" value="{"9" * 5000}:00"/></MetaData>'
    xml = f'<Jobs><Job name="k" type="User">{value}{WRAPPER}</Job></Jobs>'
    checked = call("POST", "/job/check/", files={"file": xml}).json()
    assert any("may refuse job k" in warning for warning in checked["warnings"])


def test_a_log_of_any_kind_costs_no_report(call: Call, job: dict[str, Any]) -> None:
    """Logs hold brackets that are not closed, NUL, and halves of characters."""
    report = {"t_id": job["jobID"], "inst_id": 2, "attempt": 1, "sequence": 1, "major_status": "Running"}
    for number, log in enumerate(["((((" * 20, "a\0b", "\ud800"], start=1):
        args = json.dumps(report | {"sequence": number, "log": log})
        assert call("POST", "/jobstatus/", data={"args": args}).json()["outcome"] == "applied"
        seen = call("GET", f"/job/{job['slug']}/instances/2/").json()["instance"]
        assert seen["log"] == log.replace("\ud800", "?")


def test_many_parents_are_not_looked_up(call: Call, served: Served) -> None:
    slugs = ",".join(f"{number:x}" for number in range(20_000))
    reply = call("POST", "/job/check/", files={"file": XML % "x"}, data={"depends": slugs}).json()
    assert "depends: 20000 parents, at most 100" in [problem["text"] for problem in reply["problems"]]


@pytest.fixture
def browser(served: Served) -> Iterator[requests.Session]:
    """A browser that is logged in."""
    with requests.Session() as session:
        session.headers["Accept"] = "text/html"
        form = session.get(f"{served.url}/login", timeout=60).text
        values = {"csrf_token": token_in(form), "token": served.admin_token}
        assert session.post(f"{served.url}/login", data=values, timeout=60).ok
        yield session


def token_in(page: str) -> str:
    found = re.search(r'csrf[-_]token" (?:value|content)="([^"]+)"', page)
    assert found
    return found[1]


@pytest.mark.parametrize(
    "query",
    [
        "_external=1&_scheme=javascript",
        "_method=FOO",
        "endpoint=x",
        "_anchor=x",
        "self=1",
        "sort=title&text=%22%3E%3Cb%3E",
    ],
)
def test_no_parameter_of_a_page_changes_where_its_links_lead(query: str, call: Call, job: dict[str, Any]) -> None:
    page = call("GET", f"/jobs/?{query}", headers={"Host": "evil.example", "Accept": "text/html"})
    assert page.status_code == 200
    addresses = re.findall(r'(?:href|action|hx-get)="([^"]*)"', page.text)
    assert len(addresses) > 10
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in addresses), addresses
    assert "evil.example" not in page.text and "<b>" not in page.text


@pytest.mark.parametrize(
    "goal", ["//[", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example"]
)
def test_the_way_in_leads_to_this_server_only(goal: str, served: Served) -> None:
    with requests.Session() as session:
        page = session.get(f"{served.url}/login", params={"next": goal}, timeout=60)
        assert page.status_code == 200
        values = {"csrf_token": token_in(page.text), "token": served.admin_token, "next": goal}
        reply = session.post(f"{served.url}/login", data=values, timeout=60, allow_redirects=False)
    assert (reply.status_code, reply.headers["Location"]) == (302, "/")


@pytest.mark.parametrize("current", ["http://[", "http://x//evil.example/", "javascript:alert(1)", "\xff"])
def test_a_refresh_without_a_session_leads_to_this_server_only(current: str, served: Served) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": current, "Accept": "text/html"}
    reply = requests.get(f"{served.url}/jobs/", headers=headers, timeout=60)
    assert (reply.status_code, reply.headers["HX-Redirect"]) == (401, "/login?next=/jobs/")


@pytest.mark.parametrize("numbers", ["0-" + "9" * 25, "1-" + "9" * 5000, "9" * 19])
def test_hostile_lists_of_numbers(
    numbers: str, browser: requests.Session, served: Served, job: dict[str, Any]
) -> None:
    page = browser.get(f"{served.url}/jobs/{job['slug']}", timeout=60)
    form = {"csrf_token": token_in(page.text), "which": "numbers", "numbers": numbers}
    reply = browser.post(f"{served.url}/jobs/{job['slug']}/rollback", data=form, timeout=60)
    assert reply.status_code == 422 and "numbers" in reply.text


def test_messages_are_one_line_whatever_is_in_the_address(call: Call) -> None:
    reply = call("GET", "/job/a%0d%0aSet-Cookie:%20x%1b%5b2J/")
    assert reply.status_code == 404 and "Set-Cookie" not in reply.headers
    assert reply.json()["error"].isprintable()


def test_the_log_of_the_server_gets_no_line_from_outside(call: Call, served: Served) -> None:
    log = served.settings_path.parent / "server.log"
    text = log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") :]


WORDS = Words(types=("User",), sites=("local",))


def submitted(database: Database, name: str, **values: Any) -> ObjectId:
    rows, _ = submit_xml(database, Submission((XML % name).encode(), **values), WORDS)
    return ObjectId(rows[0]["jobID"])


def test_overrides_that_do_not_fit_are_refused_when_they_are_given(database: Database) -> None:
    job = submitted(database, "a", instances=1)
    circle = '{"MetaData": [{"name": "B", "value": "$A", "var_type": "string"}]}'
    with pytest.raises(InvalidInput, match="circle"):
        creation.create_instances(database, job, 1, circle)
    with pytest.raises(InvalidInput, match="circle"):
        rollback.roll_back(database, job, [1], circle)
    assert [(found["instanceId"], found["body"]) for found in database.instances.find()] == [(1, "")]


def test_an_instance_that_cannot_be_resolved_fails_alone(call: Call, served: Served) -> None:
    """It must not keep its site from all other work: old data may hold anything."""
    made = call("POST", "/job/", files={"file": XML % "poisoned"}, data={"n_instances": 3}).json()["jobs"][0]
    database, job = served.database, ObjectId(made["jobID"])
    bad = {"$set": {"body": '{"MetaData": [{"name": "B", "value": "$A"}]}'}}
    database.instances.update_one({"job": job, "instanceId": 2}, bad)
    claim = {"site": "local", "limit": 1000, "agent": "a", "request_id": uuid.uuid4().hex}
    for _ in range(2):  # and when it is repeated
        got = call("POST", "/newjobs/", json=claim).json()
        assert sorted(one["instance_id"] for one in got["instances"] if one["job_id"] == made["jobID"]) == [1, 3]
    seen = call("GET", f"/job/{made['slug']}/instances/2/").json()["instance"]
    assert (seen["status"], seen["minor_status"]) == ("Failed", "InvalidDefinition")
    assert seen["log"] == "variables refer to each other in a circle: A -> B -> A"
    assert counts.of_jobs(database, [job])[job] == {
        status: {MajorStatus.NEW: 2, MajorStatus.FAILED: 1}.get(status, 0) for status in MajorStatus
    }
    database.instances.update_many({"job": job}, {"$set": {"body": "no JSON"}, "$unset": {"claim": ""}})
    assert rollback.roll_back(database, job, [1, 2, 3]) == 3
    old = call("GET", "/newjobs/", params={"site": "local"}).json()
    assert not [text for text in old["jobs"] if json.loads(text)["jobId"] == made["jobID"]]
    assert counts.of_jobs(database, [job])[job][MajorStatus.FAILED] == 3


def stored(database: Database, name: str, *parents: ObjectId) -> ObjectId:
    """Store a job past all checks."""
    job = jobs.new_document(jobs.NewJob(name, "User", "local", XML % name, dependencies=parents))
    database.jobs.insert_one(job)
    found: ObjectId = job["_id"]
    return found


def test_many_ways_to_an_ancestor_are_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs on each of 40 levels: a billion ways lead from the last to the first."""
    above: tuple[ObjectId, ...] = ()
    for level in range(40):
        above = (stored(database, f"a{level}", *above), stored(database, f"b{level}", *above))
    asked: list[ObjectId] = []
    definition = Resolver._definition

    def counted(self: Resolver, job: ObjectId) -> Any:
        asked.append(job)
        assert len(asked) < 1000, "ancestors are visited again and again"
        return definition(self, job)

    monkeypatch.setattr(Resolver, "_definition", counted)
    assert Resolver(database, [above[0]]).resolve(above[0]).definition.variables


def test_a_long_line_of_ancestors(database: Database) -> None:
    line = [jobs.new_document(jobs.NewJob(f"job {number}", "User", "local", XML % "a")) for number in range(1100)]
    for parent, job in itertools.pairwise(line):  # more than Python calls within each other
        job["dependencies"] = [parent["_id"]]
    database.jobs.insert_many(line)
    last = line[-1]["_id"]
    assert Resolver(database, [last]).resolve(last).definition.variables


def test_the_nearest_of_all_ancestors_wins(database: Database) -> None:
    def job(name: str, value: str, *parents: ObjectId) -> ObjectId:
        made = stored(database, name, *parents)
        body = (XML % name).replace("$B", value).replace('name="A"', f'name="{"A" if value else "Z"}"')
        database.jobs.update_one({"_id": made}, {"$set": {"body": body}})
        return made

    far = job("far", "of the far one")
    near, other = job("near", "of the near one", far), job("other", "", far)
    child = job("child", "", near, other)
    found = Resolver(database, [child]).resolve(child).definition.variables
    assert {item.name: item.value for item in found}["A"] == "of the near one"


def test_no_job_becomes_its_own_ancestor(database: Database) -> None:
    slug = {name: str(jobs.by_id(database, submitted(database, name))["slug"]) for name in ("a",)}
    slug["b"] = str(jobs.by_id(database, submitted(database, "b", parents=(slug["a"],)))["slug"])
    with pytest.raises(InvalidInput, match="depend on itself"):
        submitted(database, "a", parents=(slug["b"],), replace=True)


def test_the_largest_instance_fits_into_a_document() -> None:
    """MongoDB takes 16 MB; letters take up to 4 bytes."""
    word = 4 * 1024 + 200
    history = HISTORY_LIMIT * word
    attempt = history + 4 * rollback.LOG_KEPT + 5 * word
    samples = 2 * 200 * 60
    largest = (rollback.ATTEMPTS_KEPT + 1) * attempt + 4 * LOG_LIMIT + samples + 4 * 64 * 1024 + 10 * word
    assert largest < 16 * 1024 * 1024
    assert documents.JobInstance is not None


def test_every_definition_that_is_stored_can_be_read(database: Database) -> None:
    """Escaping makes a definition longer: what is too long then is refused at once, and not at each claim."""
    script = "<" * 400_000
    xml = f'<Jobs><Job name="a" type="User"><JobWrapper executable="b"><![CDATA[{script}]]></JobWrapper></Job></Jobs>'
    with pytest.raises(InvalidInput, match="bytes: at most"):
        submit_xml(database, Submission(xml.encode()), WORDS)
    assert database.jobs.count_documents({}) == 0
    assert parse_jobs(xml.encode())[0][0].script.startswith("<<<")
