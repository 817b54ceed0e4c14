"""Secrets are planted, everything is run with all that it can say, errors are provoked: and none of them is found."""

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import requests
from pymongo import MongoClient

from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.mongod import EmbeddedMongod, free_port
from DmpWorkflow.utils.errors import ConfigurationError
from tests.served import wait_until_healthy

BIN = Path(sys.executable).parent
SECONDS = 120
DATABASE_PASSWORD = "planted-database-password"
USER_PASSWORD = "planted user password"
WRONG_PASSWORD = "planted wrong password"
WRONG_TOKEN = "planted-wrong-token"
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')
SERVER = """\
[global]
installation = server
traceback = true
[server]
url = http://127.0.0.1:{port}
port = {port}
[database]
uri = mongodb://dampe:{password}@127.0.0.1:{mongod}/?directConnection=true&authSource=admin
name = secrets
[site]
name = local
"""
SITE = """\
[server]
url = http://127.0.0.1:{port}
token = {token}
[site]
name = local
HPCsystem = local
workdir = {folder}/work
EXEC_DIR_ROOT = {folder}/run
[watchdog]
interval = 0.2
"""
# The payload shows what it can see by itself, and lives until we have looked at all processes.
JOB = """<Jobs><Job name="looks" type="User"><JobWrapper executable="/bin/bash"><![CDATA[
env; cat /proc/$PPID/cmdline; touch {folder}/runs
until [ -e {folder}/looked ]; do sleep 0.1; done
exit 3
]]></JobWrapper></Job></Jobs>"""


@dataclass
class Stage:
    """A server with its database, a folder for all that is written, and what was said so far."""

    folder: Path
    mongod: EmbeddedMongod
    port: int
    database: Database
    said: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *words: str, config: str, typed: str = "", keep: bool = True) -> str:
        """Run a command with all that it can say, and return its output."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:], "-vv", "--config", str(self.folder / config)],
            input=typed, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=self.folder,
        )  # fmt: skip
        self.said += [done.stderr, *([done.stdout] if keep else [])]
        return done.stdout

    def leaks(self, text: str) -> list[str]:
        return [name for name, secret in self.secrets.items() if secret in text]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with EmbeddedMongod(tmp_path / "mongod") as mongod:
        with MongoClient[Document](mongod.uri) as root:
            root.admin.command("createUser", "dampe", pwd=DATABASE_PASSWORD, roles=["root"])
        made = Stage(tmp_path, mongod, free_port(), Database(mongod.uri, "secrets"))
        made.secrets = {
            "database password": DATABASE_PASSWORD,
            "user password": USER_PASSWORD,
            "wrong password": WRONG_PASSWORD,
            "wrong token": WRONG_TOKEN,
        }
        text = SERVER.format(port=made.port, password=DATABASE_PASSWORD, mongod=mongod.port)
        write(tmp_path / "server.cfg", text)
        yield made
        made.database.close()


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.fixture
def server(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    stage.run("dampe-server", "init", config="server.cfg")
    command = [
        str(BIN / "dampe-server"),
        "run",
        "-vv",
        "--workers",
        "1",
        "--config",
        str(stage.folder / "server.cfg"),
    ]
    log = stage.folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until_healthy(stage.url, process, log)
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_no_planted_secret_is_found_anywhere(stage: Stage, server: "subprocess.Popen[bytes]") -> None:
    make_credentials(stage)
    log_in_and_out(stage)
    with Client(stage.url, stage.secrets["admin token"]) as client:
        client.create_job(JOB.format(folder=stage.folder).encode(), instances=1)
    stage.run("dampe-cli-fetch-new-jobs", config="site.cfg")
    wait_for((stage.folder / "runs").exists)
    note_attempt(stage)
    look_at_processes(stage)
    (stage.folder / "looked").touch()
    wait_for(lambda: stage.database.instances.count_documents({"status": "Failed"}) == 1)
    stage.run("dampe-cli-fetch-new-jobs", config="site.cfg")
    provoke_errors(stage)
    stored = stage.database.instances.find_one() or {}
    assert "DWF_INSTANCE_ID=1" in stored["log"]  # the payload did look
    assert stage.leaks(str(stored) + str(list(stage.database.audit.find()))) == []
    lose_database(stage)
    look_at_files(stage)
    assert stage.leaks("".join(stage.said)) == []
    lines = (stage.folder / "server.log").read_text().splitlines()
    assert any("Traceback" in line for line in lines) and any("broken␍␊FORGED" in line for line in lines)
    assert not any(line.startswith("FORGED") for line in lines)


def make_credentials(stage: Stage) -> None:
    for name, role, more in (("admin", "admin", ()), ("site", "site", ("--site", "local"))):
        words = ("dampe-server", "token", "create", "--name", name, "--role", role, *more)
        stage.secrets[f"{name} token"] = stage.run(*words, config="server.cfg", keep=False).strip()
    user = ("dampe-server", "user", "create", "--name", "anna", "--role", "admin", "--password-stdin")
    stage.run(*user, config="server.cfg", typed=f"{USER_PASSWORD}\n")
    again = ("dampe-server", "user", "password", "anna", "--password-stdin")
    stage.run(*again, config="server.cfg", typed=f"{USER_PASSWORD}\n")
    for stored in stage.database.settings.find({"_id": {"$regex": "key$"}}):
        stage.secrets[str(stored["_id"])] = stored["value"]
    hashed = stage.database.users.find_one() or {}
    stage.secrets["hash of a password"] = hashed["password"]
    write(
        stage.folder / "site.cfg",
        SITE.format(port=stage.port, token=stage.secrets["site token"], folder=stage.folder),
    )
    assert all(stage.secrets.values())


def log_in_and_out(stage: Stage) -> None:
    with requests.Session() as browser:
        for password, status in ((WRONG_PASSWORD, 401), (USER_PASSWORD, 302)):
            found = CSRF.search(browser.get(f"{stage.url}/login", timeout=60).text)
            assert found is not None
            form = {"csrf_token": found[1], "name": "anna", "password": password}
            reply = browser.post(f"{stage.url}/login", data=form, timeout=60, allow_redirects=False)
            assert reply.status_code == status
            stage.said.append(reply.text)
        stage.secrets["session"] = browser.cookies["dampe_session"]
        assert browser.get(f"{stage.url}/admin/", timeout=60).status_code == 200


def note_attempt(stage: Stage) -> None:
    (run_file,) = (stage.folder / "work").rglob("*.jsonl")
    stage.secrets["attempt token"] = json.loads(run_file.read_text().splitlines()[1])["token"]
    (delivery,) = (stage.folder / "work" / ".outbox").rglob("delivery.json")
    for path in (run_file, delivery):
        assert stage.secrets["attempt token"] in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def look_at_processes(stage: Stage) -> None:
    """Everybody can read command lines; environments end up in crash reports, and in those of children."""
    seen = set()
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            assert stage.leaks(" ".join(words)) == [], words
            if any(name in " ".join(words) for name in ("gunicorn", "DmpWorkflow.backend", "payload")):
                seen |= {name for name in ("gunicorn", "backend.runner", "payload") if name in " ".join(words)}
                assert stage.leaks(json.dumps(process.environ())) == [], words
        except psutil.Error:
            continue  # it has ended, or is not ours to look at
    assert seen == {"gunicorn", "backend.runner", "payload"}


def provoke_errors(stage: Stage) -> None:
    stage.database.jobs.insert_one({"slug": "broken\r\nFORGED", "dependencies": []})
    header = {"Authorization": f"Bearer {stage.secrets['admin token']}"}
    shown = requests.get(f"{stage.url}/job/broken%0d%0aFORGED/", headers=header, timeout=60)
    assert shown.status_code == 500
    refused = requests.get(f"{stage.url}/job/", headers={"Authorization": f"Bearer {WRONG_TOKEN}"}, timeout=60)
    assert refused.status_code == 401
    stage.said += [shown.text, refused.text]
    site = (stage.folder / "site.cfg").read_text()
    write(stage.folder / "wrong.cfg", re.sub("token = .*", f"token = {WRONG_TOKEN}", site))
    stage.run("dampe-cli-heartbeat", config="wrong.cfg")
    for text in (
        re.sub("(token = .*)", r"\1\n\1", site),
        re.sub("token = (.*)", r"token \1\n\1", site),
    ):
        write(stage.folder / "odd.cfg", text)
        with pytest.raises(ConfigurationError) as odd:
            load(stage.folder / "odd.cfg")
        stage.said.append(str(odd.value))
    stage.run("dampe-cli-configure", "--show", config="site.cfg")
    database = (stage.folder / "server.cfg").read_text()
    for name, text, words in (
        ("shut.cfg", database.replace(str(stage.mongod.port), str(free_port())), "MongoDB at [database] host"),
        ("denied.cfg", database.replace("dampe:", "nobody:"), "Authentication failed"),
        ("unescaped.cfg", database.replace(DATABASE_PASSWORD, f"{DATABASE_PASSWORD}@/:"), "[database] uri: "),
        ("port.cfg", database.replace(f":{stage.mongod.port}", ":99999"), "Port must be an integer"),
    ):
        write(stage.folder / name, text)
        stage.run("dampe-server", "token", "list", config=name)
        refused_lines = [line for line in stage.said[-2].splitlines() if line.startswith("error: ")]
        assert len(refused_lines) == 1 and words in refused_lines[0]


def lose_database(stage: Stage) -> None:
    """Ask the server while its database is away."""
    stage.mongod.stop()
    header = {"Authorization": f"Bearer {stage.secrets['admin token']}"}
    down = requests.get(f"{stage.url}/job/", headers=header, timeout=60)
    assert down.status_code == 503
    stage.said.append(down.text)


def look_at_files(stage: Stage) -> None:
    """No file that others can read holds a secret, and no log at all; an attempt that is over has left no token."""
    configurations = {path.name for path in stage.folder.glob("*.cfg")}
    holding: set[str] = set()
    for path in stage.folder.rglob("*"):
        if not path.is_file() or path.is_relative_to(stage.mongod.folder):
            continue
        if found := stage.leaks(path.read_text(errors="replace")):
            assert path.name in configurations, (path, found)
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            holding.add(path.name)
    assert {"server.cfg", "site.cfg"} <= holding


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
