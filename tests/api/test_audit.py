"""The audit log: a row for every change, by whatever way it comes; and none that is ever changed."""

import getpass
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo.read_concern import ReadConcern

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import (
    audit,
    audit_search,
    clock,
    creation,
    data_catalogue,
    job_changes,
    jobs,
    rollback,
)
from DmpWorkflow.core.database.audit import Actor
from DmpWorkflow.core.database.audit_search import AuditQuery
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.documents import DOCUMENTS
from DmpWorkflow.utils.errors import Conflict, InvalidInput
from tests.documented import block
from tests.served import Served

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
XML = '<Jobs><Job name="{}" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'
PASSWORD = "a planted password"
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')
ROUTES = """
from DmpWorkflow.frontend.wsgi import app
for rule in app.url_map.iter_rules():
    for method in rule.methods - {"GET", "HEAD", "OPTIONS"}:
        print(f"{method} {rule.endpoint}")
"""

# What agents and payloads tell is the history of the instances; and checks change nothing.
EXEMPT = {
    "POST jobs.check_job",
    "POST pages.check_submission",
    "POST sites.claim",
    "POST sites.agent_heartbeat",
    "POST sites.heartbeat",
    "POST status.report",
    "POST status.report_many",
}


class Caller:
    """Sends what each route needs to change something, through the API or as a page does."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.database = served.database
        self.browser = requests.Session()
        self.secrets = [served.admin_token, PASSWORD]
        self.form("/login", token=served.admin_token)
        self.numbers = iter(range(1000))

    def api(self, path: str, method: str = "POST", **content: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.served.admin_token}", "X-Forwarded-For": "6.6.6.6"}
        reply = requests.request(method, self.served.url + path, headers=headers, timeout=60, **content)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def form(self, path: str, **fields: Any) -> requests.Response:
        page = self.browser.get(f"{self.served.url}/submit/", timeout=60)
        found = CSRF.search(page.text)
        assert found is not None
        fields["csrf_token"] = found[1]
        return self.browser.post(self.served.url + path, data=fields, timeout=60, allow_redirects=False)

    def job(self, instances: int = 3) -> Document:
        made = jobs.submit(self.database, jobs.NewJob(f"job-{next(self.numbers)}", "User", "local", XML.format("x")))
        creation.create_instances(self.database, made["_id"], instances)
        return made

    def file(self) -> Document:
        name = f"/data/{next(self.numbers)}"
        data_catalogue.register(self.database, "local", [name], "root")
        found = self.database.files.find_one({"filename": name})
        assert found is not None
        return found

    def token(self, name: str) -> None:
        self.secrets.append(self.api("/administration/tokens/", json={"name": name, "role": "read"})["token"])

    def user(self, name: str) -> None:
        body = {"name": name, "role": "read", "password": PASSWORD}
        self.api("/administration/users/", json=body)


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    return Caller(served)


def changes(caller: Caller) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Return, for each route, the action that its row names, and what calls the route."""
    job, other, gone = caller.job(), caller.job(), caller.job()
    for name in ("one", "two", "three"):
        caller.token(name)
        caller.user(f"user-{name}")
    file, second, third = caller.file(), caller.file(), caller.file()
    slug = f"/job/{job['slug']}/"
    page = f"/jobs/{other['slug']}"
    api, form = caller.api, caller.form
    new_token, new_user = {"name": "n", "role": "read"}, {"name": "user-n", "role": "read", "password": PASSWORD}
    catalogue = {"action": "delete", "filename": file["filename"], "site": "local"}
    chosen = {"which": "numbers", "numbers": "1-2"}
    submission = {"taskname": "by-page", "xml": XML.format("by-page")}
    changed = {"name": "user-two", "password": PASSWORD, "again": PASSWORD}
    return {
        "POST jobs.create_job": ("job.submit", lambda: api("/job/", files={"file": XML.format("new").encode()})),
        "POST jobs.add_instances": ("instances.add", lambda: api("/jobInstances/", json={"taskname": job["title"]})),
        "PATCH jobs.change_job": ("job.change", lambda: api(slug, "PATCH", json={"priority": 7, "tags": ["a"]})),
        "POST jobs.clone_job": ("job.clone", lambda: api(f"{slug}clone/", json={"title": "copy"})),
        "POST jobs.roll_back_instances": (
            "instances.rollback",
            lambda: api("/rollback/", json={"job": job["slug"], "instances": [1, 2, 3]}),
        ),
        "POST jobs.kill_instances": ("instances.kill", lambda: api("/kill/", json={"job": job["slug"]})),
        "DELETE jobs.remove_job": ("job.remove", lambda: api(slug, "DELETE", json={"confirm": job["title"]})),
        "POST sites.change_catalogue": ("files.delete", lambda: api("/datacat/", json=catalogue)),
        "POST administration.create_token": ("token.create", lambda: api("/administration/tokens/", json=new_token)),
        "POST administration.revoke_token": (
            "token.revoke",
            lambda: api("/administration/tokens/revoke/", json={"name": "one"}),
        ),
        "POST administration.create_user": ("user.create", lambda: api("/administration/users/", json=new_user)),
        "POST administration.set_password": (
            "user.password",
            lambda: api("/administration/users/password/", json={"name": "user-one", "password": PASSWORD}),
        ),
        "POST administration.disable_user": (
            "user.disable",
            lambda: api("/administration/users/disable/", json={"name": "user-three"}),
        ),
        "POST administration.enable_user": (
            "user.enable",
            lambda: api("/administration/users/enable/", json={"name": "user-three"}),
        ),
        "POST administration.remove_user": (
            "user.remove",
            lambda: api("/administration/users/remove/", json={"name": "user-one"}),
        ),
        "POST administration.maintain": (
            "maintenance.run",
            lambda: api("/administration/maintenance/", json={"action": "compare-counts"}),
        ),
        "POST pages.submit_job": ("job.submit", lambda: form("/submit/", **submission)),
        "POST pages.add_instances": ("instances.add", lambda: form(f"{page}/instances", number=2)),
        "POST pages.roll_back_instances": ("instances.rollback", lambda: form(f"{page}/rollback", **chosen)),
        "POST pages.kill_instances": ("instances.kill", lambda: form(f"{page}/kill", **chosen)),
        "POST pages.roll_back_instance": ("instances.rollback", lambda: form(f"{page}/3/rollback")),
        "POST pages.kill_instance": ("instances.kill", lambda: form(f"{page}/3/kill")),
        "POST pages.change_job": ("job.change", lambda: form(f"{page}/change", priority=3)),
        "POST pages.archive_job": ("job.change", lambda: form(f"/jobs/{gone['slug']}/archive", archived="0")),
        "POST pages.remove_job": (
            "job.remove",
            lambda: form(f"/jobs/{gone['slug']}/remove", confirm=gone["title"]),
        ),
        "POST pages.set_file_status": (
            "files.status",
            lambda: form("/catalogue/status", file=str(second["_id"]), status="Copied"),
        ),
        "POST pages.remove_files": (
            "files.delete",
            lambda: form("/catalogue/remove", file=str(third["_id"]), confirm="remove"),
        ),
        "POST pages.maintain": ("maintenance.run", lambda: form("/admin/maintenance", action="compare-counts")),
        "POST pages.create_token": ("token.create", lambda: form("/admin/tokens", name="p", role="read")),
        "POST pages.revoke_token": ("token.revoke", lambda: form("/admin/tokens/revoke", name="two")),
        "POST pages.create_user": (
            "user.create",
            lambda: form("/admin/users", name="user-p", role="read", password=PASSWORD, again=PASSWORD),
        ),
        "POST pages.set_password": ("user.password", lambda: form("/admin/users/password", **changed)),
        "POST pages.disable_user": ("user.disable", lambda: form("/admin/users/disable", name="user-three")),
        "POST pages.enable_user": ("user.enable", lambda: form("/admin/users/enable", name="user-three")),
        "POST pages.pause_job": ("job.change", lambda: form(f"{page}/pause", paused="1")),
        "POST pages.remove_user": ("user.remove", lambda: form("/admin/users/remove", name="user-two")),
        "POST pages.log_out": ("logout", lambda: form("/logout")),
        "POST pages.log_in": ("login", lambda: caller.form("/login", token=caller.served.admin_token)),
    }


def routes(served: Served) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", ROUTES],
        env={"DAMPE_CONFIG": str(served.settings_path), "PATH": ""},
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return set(done.stdout.splitlines())


def test_every_route_that_changes_something_leaves_a_row(served: Served, caller: Caller) -> None:
    known = changes(caller)
    assert routes(served) - EXEMPT == set(known), "a new route needs a line in changes() above, or a reason in EXEMPT"
    everybody = AuditQuery()
    for route, (action, call) in known.items():
        last = audit_search.search(served.database, everybody, 1)[0][0]["id"]
        call()
        rows = audit_search.search(served.database, everybody, 10)[0]
        new = rows[: [row["id"] for row in rows].index(last)]
        assert action in [row["action"] for row in new], route
        assert action in audit.ACTIONS
        for row in new:
            assert (row["who"], row["role"], row["address"]) == ("admin", "admin", "127.0.0.1"), route
    stored = str(list(served.database.audit.find()))
    assert all(secret not in stored for secret in caller.secrets)
    assert "argon2" not in stored and "digest" not in stored.replace("'digest': ", "")


def test_a_failed_login_names_who_it_was_tried_as(served: Served, caller: Caller) -> None:
    stranger = Caller(served)
    stranger.form("/logout")
    page = stranger.browser.get(f"{served.url}/login", timeout=60)
    found = CSRF.search(page.text)
    assert found is not None
    given = {"csrf_token": found[1], "name": "eve\r\nX-Evil: 1", "password": PASSWORD}
    reply = stranger.browser.post(f"{served.url}/login", data=given, timeout=60)
    assert reply.status_code == 401
    (row,) = Client(served.url, served.admin_token).audit(action="login.failed")
    assert (row["who"], row["role"], row["address"]) == ("eve\r\nX-Evil: 1", "none", "127.0.0.1")
    assert PASSWORD not in str(row)


def test_what_is_refused_leaves_no_row(served: Served, caller: Caller) -> None:
    job = caller.job()
    before = served.database.audit.count_documents({})
    client = Client(served.url, served.admin_token)
    with pytest.raises(Conflict):
        client.change_job(job["slug"], archived=True)
    with pytest.raises(InvalidInput):
        client.remove_job(job["slug"], "another title")
    with pytest.raises(Conflict):
        client.create_token("admin", "read")
    assert served.database.audit.count_documents({}) == before


@pytest.mark.parametrize("change", ["rollback", "remove", "archive", "priority"])
def test_row_and_change_are_one_transaction(database: Database, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A crash after the row was written, and before the transaction ended, leaves neither."""
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>"))
    before = database.audit.count_documents({})
    note = audit.note

    def crash(*arguments: Any, **options: Any) -> None:
        note(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "note", crash)
    with pytest.raises(KeyboardInterrupt):
        if change == "rollback":
            rollback.roll_back(database, job["_id"], [1])
        elif change == "remove":
            job_changes.remove(database, job)
        else:
            wanted = job_changes.JobChanges(archived=True) if change == "archive" else job_changes.JobChanges(5)
            job_changes.change(database, job, wanted)
    assert jobs.by_id(database, job["_id"]) == job
    assert database.audit.count_documents({}) == before


def test_only_what_changed_is_told(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs/>", priority=2))
    job_changes.change(database, job, job_changes.JobChanges(priority=2, tags=["a", "b"]))
    row = audit_search.search(database, AuditQuery(action="job.change"), 1)[0][0]
    assert (row["target"], row["before"], row["after"]) == (f"job/{job['slug']}", {"tags": []}, {"tags": ["a", "b"]})
    jobs.submit(database, jobs.NewJob("sim", "User", "local", "<Jobs> </Jobs>", priority=3), replace=True)
    row = audit_search.search(database, AuditQuery(action="job.replace"), 1)[0][0]
    assert set(row["before"]) == set(row["after"]) == {"digest", "priority"}
    job_changes.remove(database, jobs.by_id(database, job["_id"]))
    row = audit_search.search(database, AuditQuery(action="job.remove"), 1)[0][0]
    assert row["before"] == {"title": "sim", "type": "User", "site": "local", "allotted": 0}


def test_a_row_stays_small(database: Database) -> None:
    job = jobs.submit(database, jobs.NewJob("x" * 255, "User", "local", "<Jobs/>"))["_id"]
    creation.create_instances(database, job, 3000, json.dumps({"a": "b" * 5000}))
    rollback.roll_back(database, job, range(1, 3001, 2), json.dumps({"a": "b" * 5000}))
    names = [f"/{'d' * 1000}/{number}" for number in range(1000)]
    data_catalogue.register(database, "local", names, "root")
    data_catalogue.delete(database, "local", names)
    assert audit.spans([*range(1, 21), 35]) == "1-20, 35"
    assert audit.spans(range(1, 3001, 2)).endswith(", ...")
    for row in database.audit.find():
        assert len(str(row)) < 10_000


def test_the_command_line_is_somebody_too(served: Served, tmp_path: Path) -> None:
    command = [str(BIN / "dampe-server"), "token", "create", "--config", str(served.settings_path)]
    done = subprocess.run(
        [*command, "--name", "from-the-shell", "--role", "read"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    row = audit_search.search(served.database, AuditQuery(target="token/from-the-shell"), 1)[0][0]
    assert row["who"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert (row["role"], row["address"], row["action"]) == ("command line", "", "token.create")
    assert done.stdout.strip() not in str(row)
    settings = tmp_path / "settings.cfg"
    settings.write_text(f"[server]\nurl = {served.url}\ntoken = {served.admin_token}\n[site]\nname = local\n")
    shown = subprocess.run(
        [str(BIN / "dampe"), "audit", "--config", str(settings), "--target", "token/from-the-shell", "--json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(shown.stdout) == [row]
    words = ["--since", "2026-01-01", "--until", "2026-01-02T10:00", "--action", "token.create", "--who", "x"]
    nothing = subprocess.run(
        [str(BIN / "dampe"), "audit", "--config", str(settings), *words],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert nothing.stdout.split("\t")[0] == "time" and nothing.stdout.count("\n") == 1


def fill(database: Database, number: int) -> None:
    for position in range(number):
        by = Actor(f"user-{position % 3}", "submit", "127.0.0.1")
        audit.note(database, audit.ACTIONS[position % 4], f"job/{position % 5}", after={"n": position}, by=by)


def test_pages_meet_every_row_once_and_filters_choose(database: Database) -> None:
    fill(database, 25)
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        rows, cursor = audit_search.search(database, AuditQuery(), 4, cursor)
        seen += [row["after"]["n"] for row in rows]
    assert seen == list(range(24, -1, -1))

    def chosen(**fields: Any) -> set[int]:
        return {row["after"]["n"] for row in audit_search.search(database, AuditQuery(**fields), 100)[0]}

    everything = set(range(25))
    assert chosen(who="user-1") == {n for n in everything if n % 3 == 1}
    assert chosen(action="job.change") == {n for n in everything if n % 4 == 2}
    assert chosen(target="job/3", who="user-0") == {n for n in everything if n % 5 == 3 and n % 3 == 0}
    assert chosen(since=clock.now() + timedelta(minutes=1)) == set()
    assert chosen(until=clock.now() + timedelta(minutes=1), since=clock.now() - timedelta(hours=1)) == everything
    for cursor in ("x", "1-", f"{10**30}-{'0' * 24}", "1-zz"):
        with pytest.raises(InvalidInput, match="is no cursor"):
            audit_search.search(database, AuditQuery(), 4, cursor)


@pytest.mark.parametrize(
    ("fields", "index"),
    [
        ({}, "time_-1__id_-1"),
        ({"who": "user-1"}, "who_1_time_-1__id_-1"),
        ({"action": "job.change"}, "action_1_time_-1__id_-1"),
        ({"target": "job/3"}, "target_1_time_-1__id_-1"),
    ],
)
def test_every_search_is_read_from_an_index_in_its_order(
    database: Database, fields: dict[str, Any], index: str
) -> None:
    fill(database, 60)
    last = audit_search.search(database, AuditQuery(**fields), 2)[1]
    assert last is not None
    asked = AuditQuery(**fields, since=clock.now() - timedelta(hours=1)).as_filter()
    for query in (asked, {"$and": [asked, audit_search.beyond(last)]}):
        collection = database.audit.with_options(read_concern=ReadConcern("local"))
        found = collection.find(query, sort=audit_search.NEWEST_FIRST, limit=3).explain()
        plan = str(found["queryPlanner"]["winningPlan"])
        assert f"'indexName': '{index}'" in plan and "'stage': 'SORT'" not in plan
        assert found["executionStats"]["totalDocsExamined"] <= 5  # what is shown, and the place of the cursor


def test_nothing_of_the_program_changes_a_row() -> None:
    written = {path for path in (ROOT / "DmpWorkflow").rglob("*.py") if ".audit." in path.read_text()}
    assert {path.name for path in written} == {"audit.py", "audit_search.py"}
    calls = {word for path in written for word in re.findall(r"\.audit\.(\w+)", path.read_text())}
    assert calls == {"insert_one", "find"}


def test_the_documented_role_of_the_database_knows_every_collection() -> None:
    names = re.findall(r'"(\w+)"', block("docs/server.md", "database role").partition("]")[0])
    assert {*names, "audit"} == {document._meta["collection"] for document in DOCUMENTS}
