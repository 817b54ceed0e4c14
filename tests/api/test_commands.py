"""The commands as their users run them, against a served process."""

import json
import os
import pty
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import creation, jobs, users
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.reports import Report
from DmpWorkflow.frontend.cli import main
from tests.served import Served

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLIENT = """\
[global]
installation = client
[server]
url = {url}
token = {token}
[JobDB]
batch_sites = local
[site]
name = local
HPCsystem = local
workdir = {folder}/work
EXEC_DIR_ROOT = {folder}/run
slots = 2
"""


class Shell:
    """Runs commands with a configuration for the served process."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.config = folder / "settings.cfg"
        self.config.write_text(CLIENT.format(url=served.url, token=served.admin_token, folder=folder))
        self.environment = os.environ | {"DAMPE_CONFIG": str(self.config), "HOME": str(folder)}
        self.folder = folder

    def run(self, *words: str, code: int = 0, config: Path | None = None, typed: str = "") -> str:
        environment = self.environment | ({"DAMPE_CONFIG": str(config)} if config else {})
        done = subprocess.run(
            [BIN / words[0], *words[1:]],
            env=environment, cwd=self.folder, text=True, input=typed, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        self.stderr = done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(served: Served, tmp_path: Path) -> Shell:
    return Shell(served, tmp_path)


def test_the_tour_of_the_readme(shell: Shell) -> None:
    """Submit, run, look, fail, roll back."""
    example = str(ROOT / "examples" / "helloWorld.xml")
    assert "Added job tour (" in shell.run("dampe-cli-new-job", example, "-n", "tour", "--Ninstances", "2")
    slug = shell.json("dampe-cli-jobs", "list", "--title", "tour")[0]["slug"]
    assert "2 claimed, 2 submitted" in shell.run("dampe-cli-fetch-new-jobs", "-c", "20", "-m", "800")
    watched = shell.run("dampe-cli-jobs", "watch", slug, "--interval", "0.2")
    assert watched.strip() == "Done 2"
    shown = shell.run("dampe-cli-jobs", "show", slug, "1")
    assert "status: Done" in shown and "Hello World, I am instance 1" in shown
    failing = shell.folder / "failing.xml"
    failing.write_text(Path(example).read_text().replace("> test.dat", "> test.dat; exit ${CODE:-3}"))
    shell.run("dampe-cli-create-new-job", "-i", str(failing), "-n", "failing", "-t", "User", "--Ninstances", "1")
    shell.run("dampe-cli-fetch-new-jobs")
    slug = shell.json("dampe-cli-jobs", "list", "--title", "failing")[0]["slug"]
    shell.run("dampe-cli-jobs", "watch", slug, "--interval", "0.2", code=1)
    assert "ApplicationExitCode3" in shell.run("dampe-cli-jobs", "show", slug)
    select = ("--title", "failing", "--type", "User", "--status", "Failed")
    shell.run("dampe-cli-rollback-jobInstance", *select, code=2)
    assert "add --yes" in shell.stderr
    assert "Rolled back 1" in shell.run("dampe-cli-rollback-jobInstance", *select, "--set-var", "CODE=0", "--yes")
    shell.run("dampe-cli-fetch-new-jobs")
    assert shell.run("dampe-cli-jobs", "watch", slug, "--interval", "0.2").strip() == "Done 1"


def test_instances_are_added_and_changed_by_hand(shell: Shell) -> None:
    example = str(ROOT / "examples" / "helloWorld.xml")
    job = shell.json("dampe", "job", "create", example, "-n", "by-hand")[0]["jobID"]
    added = shell.json(
        "dampe-cli-create-new-jobInstance", "-n", "by-hand", "-t", "User", "-i", "3", "--set-var", 'A="x;y=z"'
    )
    assert (added["first"], added["last"]) == (1, 3)
    shell.run("dampe-cli-update-job-status", job, "1", "Submitted", "--batchId", "77")
    shell.run("dampe-cli-update-job-status", job, "1", "Terminated", "--minor_status", "Broken")
    shell.run("dampe-cli-update-job-status", job, "1", "Running", code=4)
    assert shell.stderr.strip() == (
        "error: an instance in status Terminated cannot become Running; only a roll-back leaves a final status"
    )
    slug = shell.json("dampe-cli-jobs", "list", "--title", "by-hand")[0]["slug"]
    detail = shell.json("dampe-cli-jobs", "show", slug, "1")
    assert (detail["minor_status"], detail["batch_id"]) == ("Broken", "77")
    assert json.loads(detail["overrides"])["MetaData"] == [{"name": "A", "value": "x;y=z", "var_type": "string"}]


def test_jobs_are_changed_copied_exported_and_removed(shell: Shell) -> None:
    jobs = "dampe-cli-jobs"
    shell.run("dampe-cli-new-job", str(ROOT / "examples" / "helloWorld.xml"), "-n", "kept", "--Ninstances", "2")
    assert shell.run(jobs, "priority", "kept", "7") == "kept: priority 7\n"
    assert shell.run(jobs, "priority", "kept", "--", "-7") == "kept: priority -7\n"
    assert shell.run(jobs, "tag", "kept", "flight", "v6") == "kept: tags flight, v6\n"
    assert [job["title"] for job in shell.json(jobs, "list", "--tag", "flight", "--sort", "title")] == ["kept"]
    assert shell.run(jobs, "tag", "kept") == "kept: no tags\n"
    shell.run(jobs, "archive", "kept", code=4)
    assert "instance 1 is New" in shell.stderr
    assert "Added job again (" in shell.run(jobs, "clone", "kept", "again", "--Ninstances", "3")
    assert "instances 1 to 3" in shell.run(jobs, "clone", "kept", "thrice", "--Ninstances", "3")
    assert len(shell.run(jobs, "export", "again", "--n_max", "2").splitlines()) == 3
    target = shell.folder / "again.json"
    assert shell.run(jobs, "export", "again", "--format", "json", "--output", str(target)) == f"Wrote {target}\n"
    assert [row["number"] for row in json.loads(target.read_text())] == [1, 2, 3]
    shell.run(jobs, "export", "again", "--output", "/nowhere/x.csv", code=2)
    assert shell.stderr == "error: cannot write /nowhere/x.csv: No such file or directory\n"
    shell.run(jobs, "kill", shell.json(jobs, "show", "kept")["slug"], "--yes")
    assert len(shell.json(jobs, "show", "kept", "--minor_status", "KilledByUser", "--descending")["instances"]) == 2
    slug = shell.json(jobs, "show", "kept")["slug"]
    again = ("--status", "Terminated", "--minor_status", "KilledByUser", "--n_max", "1", "--set-var", "A=2")
    shell.run(jobs, "rollback", slug, *again, code=2)
    assert shell.run(jobs, "rollback", slug, *again, "--yes") == "Rolled back 1 instances\n"
    assert '"2"' in shell.json(jobs, "show", "kept", "1")["overrides"]
    shell.run(jobs, "kill", slug, "--yes")
    assert shell.run(jobs, "archive", "kept") == "kept: archived\n"
    assert shell.json(jobs, "list", "--title", "kept") == []
    assert shell.run(jobs, "unarchive", "kept") == "kept: no longer archived\n"
    shell.run(jobs, "remove", "kept", code=2)
    assert "add --yes" in shell.stderr
    assert shell.run(jobs, "remove", "kept", "--yes") == "Removed kept and 2 instances\n"
    shell.run(jobs, "show", "kept", code=3)


def test_retries_and_pauses_by_command(shell: Shell, served: Served) -> None:
    job = jobs.submit(served.database, jobs.NewJob("fragile", "User", "local", "<Jobs/>"))
    creation.create_instances(served.database, job["_id"], 1)
    slug = job["slug"]
    said = shell.run("dampe-cli-jobs", "retries", "fragile", "3", "--on", "site,payload", "--lost-after", "48:00")
    assert said == "fragile: 3 retries after site, payload\n"
    shell.run("dampe-cli-jobs", "retries", "fragile", "3", "--on", "sites", code=2)
    assert "retry-on: 'sites': expected site, payload, limits, lost" in shell.stderr
    shell.run("dampe-cli-jobs", "pause", "fragile")
    watched = shell.run("dampe-cli-jobs", "watch", "fragile", code=1)
    assert f"paused: by admin; dampe-cli-jobs resume {slug} lets it go on" in watched
    shell.run("dampe-cli-jobs", "resume", "fragile")
    with Client(served.url, served.admin_token) as client:
        found = client.job(slug)
        assert (found["retries"], found["retry_on"], found["lost_after"]) == (3, ["site", "payload"], 48 * 3600)
        assert found["paused"] == ""
        assert client.change_job(slug, lost_after=0)["lost_after"] is None


def test_a_dry_run_claims_nothing(shell: Shell, served: Served) -> None:
    shell.run("dampe-cli-new-job", str(ROOT / "examples" / "helloWorld.xml"), "-n", "dry", "--Ninstances", "4")
    assert "would claim at most 3" in shell.run("dampe-cli-fetch-new-jobs", "-d", "-c", "3")
    job = served.database.jobs.find_one({"title": "dry"})
    assert job is not None
    assert served.database.instances.count_documents({"job": job["_id"], "attempt": 0}) == 4


def test_the_catalogue(shell: Shell) -> None:
    shell.run("dampe-datacatalog", "-a", "register", "-s", "local", "-f", "/data/x.root")
    assert shell.run("dampe-datacatalog", "-a", "list", "-s", "local").splitlines() == [
        "found 1 files",
        "/data/x.root",
    ]
    shell.run("dampe-datacatalog", "-a", "setStatus", "-s", "local", "-f", "/data/x.root", "-S", "Copied")
    assert shell.json("dampe-datacatalog", "-a", "list", "-s", "local", "-S", "Copied") == ["/data/x.root"]
    shell.run("dampe-datacatalog", "-a", "delete", "-s", "local", "-f", "/data/none", code=3)
    assert shell.stderr.strip() == "error: cannot find file in DB"


def test_the_catalogue_in_full(shell: Shell) -> None:
    for name in ("/full/a.root", "/full/<b>.root", "/full/[red]c.root"):
        shell.run("dampe-datacatalog", "-a", "register", "-s", "local", "-f", name)
    shell.run("dampe-datacatalog", "-a", "setStatus", "-s", "local", "-f", "/full/a.root", "-S", "Copied")
    rows = shell.json("dampe-datacatalog", "-a", "list", "--long", "--name", "/full/", "--sort", "name")
    assert [(row["filename"], row["status"]) for row in rows] == [
        ("/full/<b>.root", "New"), ("/full/[red]c.root", "New"), ("/full/a.root", "Copied"),
    ]  # fmt: skip
    lines = shell.run(
        "dampe-datacatalog", "-a", "list", "--csv", "-s", "Any", "-S", "Copied", "--name", "/full"
    ).splitlines()
    assert lines[0] == "filename,site,filetype,status,created_at,last_update"
    assert len(lines) == 2 and lines[1].startswith("/full/a.root,local,root,Copied,20")
    assert "/full/[red]c.root\tlocal" in shell.run("dampe-datacatalog", "-a", "list", "--long", "-l", "1000")
    assert (
        shell.json("dampe-datacatalog", "-a", "list", "--long", "-l", "1", "--name", "/full/")[0]["status"] == "New"
    )


def test_configure_tries_the_server_and_installs(shell: Shell, served: Served) -> None:
    target = shell.folder / "etc" / "settings.cfg"
    said = shell.run("dampe-cli-configure", "-f", str(shell.config), "--target", str(target))
    assert "credential: admin, role admin" in said and "database ok" in said
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    shown = shell.run("dampe-cli-configure", "--show", config=target)
    assert served.admin_token not in shown and f"{target}:4" in shown
    broken = shell.folder / "broken.cfg"
    broken.write_text("[site]\nHPCsystem = condr\nHPCmemory = lots\n")
    shell.run("dampe-cli-configure", "-f", str(broken), "--target", str(target), code=7)
    assert "HPCsystem" in shell.stderr and "HPCmemory" in shell.stderr
    assert target.read_text() == shell.config.read_text()


def test_a_server_that_is_not_there_is_one_plain_line(shell: Shell) -> None:
    shell.config.write_text(re.sub(r"url = .*", "url = http://127.0.0.1:9\npatience = 0.1", shell.config.read_text()))
    shell.run("dampe-cli-heartbeat", code=6)
    assert shell.stderr.strip() == "error: http://127.0.0.1:9 does not answer: check [server] url and the network"


def test_a_credential_in_the_url_works_and_is_never_shown(shell: Shell, served: Served) -> None:
    text = re.sub(r"token = .*\n", "", shell.config.read_text())
    secret = served.admin_token
    shell.config.write_text(text.replace("http://", f"http://site:{secret}@"))
    said = shell.run("dampe-cli-configure", "-f", str(shell.config), "--target", str(shell.folder / "copy.cfg"))
    assert "credential: admin, role admin" in said
    said += shell.run("dampe-cli-configure", "--show")
    said += shell.run("dampe-cli-jobs", "list", "-v", "-v") + shell.stderr
    assert "DEBUG" in said  # of each request
    unreachable = re.sub(r"@127.0.0.1:\d+", "@127.0.0.1:9", shell.config.read_text())
    shell.config.write_text(unreachable.replace("[server]\n", "[server]\npatience = 1\n"))
    shell.run("dampe-cli-heartbeat", "-v", code=6)
    assert "http://127.0.0.1:9 does not answer" in shell.stderr
    assert secret not in said + shell.stderr
    with Client(f"{served.url}/".replace("http://", f"http://x:{secret}@")) as client:
        assert client.whoami()["role"] == "admin" and secret not in client.url


def test_bad_xml_names_the_line(shell: Shell) -> None:
    bad = shell.folder / "bad.xml"
    bad.write_text("<Jobs>\n<Job name='x'/>\n</Jobs>")
    shell.run("dampe-cli-new-job", str(bad), code=2)
    assert "error: line 2: Element 'Job': Missing child element(s). Expected is" in shell.stderr


def test_a_check_prints_every_problem_or_what_would_run(shell: Shell, served: Served) -> None:
    bad = shell.folder / "bad.xml"
    bad.write_text("<Jobs>\n<Job type='No' site='NOWHERE'>\n<JobWrapper executable='x'/></Job>\n</Jobs>")
    shell.run("dampe-cli-new-job", "--check", str(bad), code=2)
    lines = shell.stderr.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [["error", str(bad), "line 2"]] * 3
    assert "task name must be defined" in lines[0] and "'No' is not known" in lines[1]
    example = str(ROOT / "examples" / "helloWorld.xml")
    said = shell.run("dampe", "job", "create", example, "--check", "-n", "looked-at", "--set-var", "GREETING=Hi")
    assert "  GREETING=Hi\n" in said and "  DWF_SIXDIGIT=000001\n" in said
    assert "  output: test.dat -> ${EXEC_DIR_ROOT}/output/looked-at/000001.dat\n" in said
    assert "gets no instances now" in shell.stderr
    assert shell.json("dampe-cli-new-job", example, "--check", "-n", "looked-at")["valid"] is True
    assert served.database.jobs.count_documents({"title": "looked-at"}) == 0


def test_the_server_commands(shell: Shell, served: Served) -> None:
    server = ("dampe-server",)
    shell.run(*server, "init", config=served.settings_path)
    checked = shell.run(*server, "check", config=served.settings_path)
    assert "ok    database: MongoDB" in checked and "ok    access: every client needs a credential" in checked
    opened = shell.folder / "open.cfg"
    opened.write_text(served.settings_path.read_text().replace("auth =", "auth_networks = 10.1.0.0/16 off\nauth ="))
    checked = shell.run(*server, "check", config=opened)
    assert "open: without a credential, clients from 10.1.0.0/16 may do everything" in checked
    opened.write_text(served.settings_path.read_text().replace("auth = required", "auth = off"))
    assert "FAIL  access: [server] auth is off" in shell.run(*server, "check", code=1, config=opened)
    token = shell.run(
        *server, "token", "create", "--name", "t1", "--role", "site", "--site", "CNAF", config=served.settings_path
    )
    assert len(token.strip()) > 30
    listed = shell.run(*server, "token", "list", config=served.settings_path)
    assert "t1\tsite\tCNAF" in listed and token.strip() not in listed
    create = (*server, "token", "create", "--name", "t3")
    shell.run(*create, "--role", "site:CNAF", "--expires", "2999-12-31", config=served.settings_path)
    shell.run(*create, "--role", "king", code=2, config=served.settings_path)
    assert shell.stderr == "error: role 'king': expected one of admin, operator, submit, read, site\n"
    listed = shell.run(*server, "token", "list", config=served.settings_path)
    assert re.search("t3\tsite\tCNAF\t.*\t3000-01-01 00:00:00", listed)
    shell.run(*server, "token", "revoke", "t3", config=served.settings_path)
    shell.run(*server, "token", "revoke", "t1", config=served.settings_path)
    shell.run(*server, "token", "revoke", "t1", code=3, config=served.settings_path)
    shell.run(
        *server,
        "token",
        "create",
        "--name",
        "t2",
        "--role",
        "site",
        "--site",
        "NO",
        code=2,
        config=served.settings_path,
    )
    away = shell.folder / "away.cfg"
    away.write_text(
        "[global]\ninstallation = server\n[database]\nuri = mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300\n"
    )
    assert "FAIL  database: MongoDB at" in shell.run(*server, "check", code=1, config=away)


def test_users_by_command(shell: Shell, served: Served) -> None:
    user, server = ("dampe-server", "user"), served.settings_path

    def run(*words: str, password: str = "", code: int = 0) -> str:
        return shell.run(*user, *words, code=code, config=server, typed=password)

    made = ("create", "--name", "anna", "--role", "site", "--site", "CNAF", "--password-stdin")
    assert run(*made, password="a long password\n") == "created anna\n"
    assert users.authenticate(served.database, "anna", "a long password")
    run(*made, password="a long password\n", code=4)
    assert shell.stderr == "error: there is a user named 'anna'\n"
    assert "anna\tsite\tCNAF" in run("list")
    assert (
        run("password", "anna", "--password-stdin", password="another password") == "changed the password of anna\n"
    )
    assert users.authenticate(served.database, "anna", "another password")
    run("password", "anna", "--password-stdin", password="short\n", code=2)
    assert "at least 10 characters" in shell.stderr
    run("create", "--name", "bert", "--role", "site", "--site", "NO", "--password-stdin", password="x" * 10, code=2)
    assert "site 'NO' is not known" in shell.stderr
    assert run("disable", "anna") == "disabled anna\n" and re.search("anna\t.*\tTrue\n", run("list"))
    assert run("enable", "anna") == "enabled anna\n" and users.authenticate(
        served.database, "anna", "another password"
    )
    run("disable", "nobody", code=3)
    run("remove", "anna")
    run("remove", "anna", code=3)
    assert served.database.users.count_documents({}) == 0


@pytest.mark.parametrize(("again", "code"), [("a long password", 0), ("another password", 1)])
def test_a_password_is_asked_for_twice_and_not_shown(shell: Shell, served: Served, again: str, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [str(BIN / "dampe-server"), "user", "create", "--name", f"asked-{code}", "--role", "read"]
    environment = shell.environment | {"DAMPE_CONFIG": str(served.settings_path)}
    with subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = _until(ours, "Password: ")
        os.write(ours, b"a long password\n")
        shown += _until(ours, "Password again: ")
        os.write(ours, again.encode() + b"\n")
        shown += _until(ours, "created" if code == 0 else "Password: ")
        os.close(ours)  # the terminal hangs up
        process.wait(60)
    assert "password" not in shown.replace("Password", "")
    assert (served.database.users.count_documents({"name": f"asked-{code}"}) == 1) == (code == 0)


def _until(terminal: int, words: str) -> str:
    """Return what a program shows until these words appear."""
    shown = ""
    while words not in shown:
        shown += os.read(terminal, 1024).decode()
    return shown


def test_maintenance_by_command(shell: Shell, served: Served) -> None:
    maintain, server = ("dampe-server", "maintain"), served.settings_path
    assert "compare-counts\t-\t-\t-\t-" in shell.run(*maintain, config=server)
    job = jobs.submit(served.database, jobs.NewJob("miscounted", "User", "local", "<Jobs/>"))["_id"]
    served.database.counts.update_one({"_id": f"{job}:0"}, {"$inc": {"status.Done": 1}})
    assert "1 Done too many" in shell.run(*maintain, "compare-counts", code=1, config=server)
    assert "are repaired" in shell.run(*maintain, "repair-counts", config=server)
    assert "are exact" in shell.run(*maintain, "compare-counts", config=server)
    listed = shell.run(*maintain, config=server)
    assert re.search(r"compare-counts\t.+\tcommand line on \S+\tthe counts of \d+ jobs? are exact", listed)
    shell.run(*maintain, "nosuch", code=2, config=server)
    assert "expected one of return-expired-leases" in shell.stderr


def every_command(group: click.Command, words: tuple[str, ...]) -> list[tuple[click.Command, tuple[str, ...]]]:
    if not isinstance(group, click.Group):
        return [(group, words)]
    return [found for name, sub in group.commands.items() for found in every_command(sub, (*words, name))]


@pytest.mark.parametrize(("command", "words"), every_command(main.dampe, ("dampe",)), ids=lambda item: str(item))
def test_every_help_text_has_an_example_that_parses(command: click.Command, words: tuple[str, ...]) -> None:
    context = click.Context(command, info_name=" ".join(words))
    assert "Example: " in command.get_help(context)
    example = (command.epilog or "").removeprefix("Example: ")
    named = re.search(r"(dampe\S*)(( [^;]+)?)", example)
    assert named is not None
    arguments = shlex.split(named[2])
    scripts: dict[str, click.Command] = {
        "dampe": main.dampe, "dampe-server": main.dampe_server, "dampe-cli-jobs": main.dampe_jobs,
        "dampe-cli-new-job": main.new_job,
    }  # fmt: skip
    target: click.Command = scripts.get(named[1], command)
    while isinstance(target, click.Group):
        target = target.commands[arguments.pop(0)]
    assert target is command
    os.chdir(ROOT)
    target.make_context("test", arguments)


@pytest.mark.parametrize("script", ["dampe", "dampe-cli-fetch-new-jobs", "dampe-cli-jobs", "dampe-datacatalog"])
def test_a_site_needs_neither_flask_nor_a_database_driver(script: str) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['flask', 'pymongo', 'bson', 'mongoengine', 'pydantic']))"
    run = f"import runpy; runpy.run_path({str(BIN / script)!r}, run_name='__main__')"
    code = f"{blocked}; sys.argv[1:] = ['--help']; {run}"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and "Usage" in done.stdout, done.stderr
    code = code.replace("['--help']", "['server', 'check']")
    if script == "dampe":
        done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=False)
        assert "pip install 'DmpWorkflow[server]'" in done.stdout


def test_a_site_looks_after_its_jobs(shell: Shell) -> None:
    """Check, kill, watch from outside, reconcile."""
    checked = shell.run("dampe", "site", "check", "--wait", "60")
    assert "PROBLEM" not in checked and re.search(r"ok +probe job: ran on \S+ as \S+, back after [\d.]+ s", checked)
    slow = shell.folder / "slow.xml"
    slow.write_text(
        (ROOT / "examples" / "helloWorld.xml").read_text().replace("> test.dat", "> test.dat; sleep 1000")
    )
    shell.run("dampe-cli-new-job", str(slow), "-n", "slow", "-t", "User", "--Ninstances", "3")
    shell.run("dampe-cli-fetch-new-jobs")
    slug = shell.json("dampe-cli-jobs", "list", "--title", "slow")[0]["slug"]
    shell.run("dampe-cli-jobs", "kill", slug, code=2)
    assert "add --yes" in shell.stderr
    killed = shell.run("dampe-cli-jobs", "kill", slug, "--yes")
    assert killed.strip() == "Ended 0 waiting instances; 3 end with the next cycle of their agents"
    assert re.search(r"\d+ running, \d+ with figures, 0 stopped", shell.run("dampe-cli-run-watchdog"))
    deadline = 60
    while shell.json("dampe-cli-update-alive-jobs")["in_system"] and deadline:
        deadline -= 1
    shell.run("dampe-cli-update-alive-jobs")
    shown = [shell.json("dampe-cli-jobs", "show", slug, str(number)) for number in (1, 2, 3)]
    assert {(row["status"], row["minor_status"]) for row in shown} == {("Terminated", "KilledByUser")}


def test_a_site_check_names_problem_and_remedy(shell: Shell, served: Served) -> None:
    config = shell.folder / "wrong.cfg"
    config.write_text(
        CLIENT.format(url=served.url, token="nonsense", folder="/proc").replace("= local\nw", "= slurm\nw")
        + "HPCbin = /nowhere\n"
    )
    checked = shell.run("dampe", "site", "check", code=1, config=config).splitlines()
    assert [line.split(": ")[0].split(" ", 1)[0] for line in checked] == ["ok", "ok", *["PROBLEM"] * 3]
    assert "set [site] workdir" in checked[3] and "set [site] HPCbin" in checked[4]


def test_how_sites_and_jobs_do(shell: Shell, served: Served) -> None:
    """With what the first page shows, and the pages of sites and jobs."""
    database = served.database
    job = jobs.submit(database, jobs.NewJob("statistics", "User", "local", "<Jobs/>"))
    creation.create_instances(database, job["_id"], 2)
    start = {"hostname": "wn1"}
    for number, end in ((1, MajorStatus.DONE), (2, MajorStatus.FAILED)):
        apply_report(database, StatusReport(job["_id"], number, Report(MajorStatus.SUBMITTED)))
        apply_report(database, StatusReport(job["_id"], number, Report(MajorStatus.RUNNING, 1, 1), start))
        values = {"minor_status": "Crash", "log": "bad luck"} if end is MajorStatus.FAILED else {"Nevents": 7}
        apply_report(database, StatusReport(job["_id"], number, Report(end, 1, 2), values))
    assert re.search(r"local\t(red|amber|green|grey)\t", shell.run("dampe", "status"))
    told = shell.json("dampe", "status", "--site", "local", "--json")
    assert {"site": "local", "status": "Failed", "minor_status": "Crash", "number": 1} in told["failures"]
    assert "wn1\t" in shell.run("dampe", "site", "hosts", "local")
    assert (
        "over: 2 of 2\n" in (shown := shell.run("dampe-cli-jobs", "progress", job["slug"])) and "events: 7" in shown
    )
    assert "1\t2\tbad luck" in shell.run("dampe-cli-jobs", "failures", job["slug"], "--by", "line")
    shell.run("dampe-cli-jobs", "failures", "nosuch", code=3)
