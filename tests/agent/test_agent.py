"""The agent with the local backend, real payloads and a real server."""

import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from DmpWorkflow.backend import journal
from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.backend.work_files import outbox_folder
from DmpWorkflow.core.database import clock, credentials
from DmpWorkflow.utils.errors import ConfigurationError, Conflict, Unavailable
from tests.agent.farm import SECONDS, Site, children_of_nobody
from tests.documented import block
from tests.needs import faketime
from tests.served import Served


@pytest.fixture
def site(served: Served, tmp_path: Path) -> Iterator[Site]:
    served.database.instances.delete_many({})  # what other tests left is not ours to run
    made = Site(served, tmp_path)
    yield made
    made.close()
    assert children_of_nobody(tmp_path) == []


def test_forty_instances_run_once_each(site: Site) -> None:
    job = site.submit(40)
    assert site.cycle(chunk=25, in_system=30).submitted == 25
    site.run_all(job)
    assert site.runs() == Counter({str(number): 1 for number in range(1, 41)})


def test_the_limit_of_jobs_in_the_system_holds(site: Site) -> None:
    site.submit(10, script="sleep 100")
    assert site.cycle(in_system=3).claimed == 3
    assert site.cycle(in_system=3).claimed == 0
    assert len(site.backend.query()) == 3


def test_payloads_go_on_without_an_agent(site: Site) -> None:
    job = site.submit(8)
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Done": 8})


def test_no_more_payloads_than_slots_run_at_once(served: Served, tmp_path: Path, site: Site) -> None:
    gate = tmp_path / "gate"
    job = site.submit(9, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    site.wait(lambda: site.counts(job).get("Running") == 4)
    site.cycle()
    assert sum(site.runs().values()) == 4
    gate.touch()
    site.wait(lambda: site.counts(job) == {"Done": 9})


CRASHES = [
    ("journal", "before", 1), ("journal", "after", 1), ("journal", "before", 2), ("journal", "after", 2),
    ("intent", "before", 1), ("intent", "after", 1), ("closing", "before", 1), ("closing", "after", 1),
    ("heartbeat", "before", 1), ("heartbeat", "after", 1), ("claim", "before", 1), ("claim", "after", 1),
    ("prepare", "before", 1), ("prepare", "after", 1), ("submit", "before", 1), ("submit", "after", 1),
    ("queue", "before", 3), ("queue", "after", 3), ("report", "before", 1), ("report", "after", 1),
]  # fmt: skip


def test_an_agent_killed_at_any_step_neither_loses_nor_doubles(site: Site) -> None:
    crashes = 0
    for point, when, number in CRASHES:
        job = site.submit(5)
        crashes += site.crash(point, when, number)
        site.run_all(job)
    assert crashes >= len(CRASHES) - 2  # a cycle saves its journal as often as it has something to say
    lines = site.ledger.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 5 * len(CRASHES)


def test_a_journal_that_is_lost_is_made_anew_from_the_queue(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = site.submit(6, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    folder = journal.agent_folder(Path(site.settings.site.workdir), "local")
    (folder / "journal.json").unlink()
    assert site.cycle().claimed == 0
    with journal.opened(folder) as opened:
        assert len(opened.held) == 6
    gate.touch()
    site.run_all(job)
    assert sum(site.runs().values()) == 6


def test_scripts_are_kept_as_long_as_one_attempt_needs_them(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = site.submit(2, script=f"while [ $DWF_INSTANCE_ID = 2 ] && ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Done": 1, "Running": 1})
    folder = journal.agent_folder(Path(site.settings.site.workdir), "local")
    site.wait(lambda: site.cycle().in_system == 1)
    site.cycle()
    (folder / "journal.json").unlink()
    site.cycle()
    assert sorted(path.suffix for path in (folder / "scripts").iterdir()) == [".jsonl", ".sh"]
    gate.touch()
    site.run_all(job)
    site.wait(lambda: site.cycle().in_system == 0)
    site.cycle()
    assert list((folder / "scripts").iterdir()) == []


def test_what_an_earlier_attempt_left_in_the_work_folder_is_removed(site: Site) -> None:
    job = site.submit(1, script="echo attempt $DWF_ATTEMPT, umask $(umask)")
    site.run_all(job)
    folder = Path(site.settings.site.workdir) / job["title"] / "User" / "01"
    usual = os.umask(0o077)
    os.umask(usual)
    assert f"attempt 1, umask {usual:04o}" in (folder / "output.log").read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "output.log")] == [0o700, 0o600]
    (folder / "core.17").touch()
    site.people.roll_back(job["slug"], instances=[1])
    site.run_all(job)
    assert "attempt 1" not in (folder / "output.log").read_text()
    assert [path.name for path in folder.iterdir()] == ["output.log"]


def test_what_vanished_is_concluded_after_a_second_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = site.submit(1, script="sleep 1000")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    kill_everything(site)
    assert site.cycle().lost == 0
    assert site.counts(job) == {"Running": 1}
    assert site.cycle().lost == 1
    shown = site.people.instance(job["slug"], 1)
    assert (shown["status"], shown["minor_status"]) == ("Failed", "BatchJobVanished")
    assert list(outbox_folder(site.settings).iterdir()) == []
    scripts = journal.agent_folder(Path(site.settings.site.workdir), "local") / "scripts"
    site.cycle()
    assert len(list(scripts.iterdir())) == 2  # the batch system could remember the job after all
    monkeypatch.setattr(journal, "LOST_KEPT", 0)
    site.cycle()
    assert list(scripts.iterdir()) == []


def test_a_runner_that_is_killed_alone_leaves_no_daemon_behind(site: Site, tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    job = site.submit(1, script=f"setsid bash -c 'echo $$ > {daemon}; sleep 1000' & wait")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and daemon.exists() and bool(daemon.read_text()))
    (record,) = [found for _, found in site.local.spool.records("running")]
    os.kill(record["pid"], signal.SIGKILL)
    site.wait(lambda: all(map(site.local.spool.is_free, range(4))))
    assert not psutil.pid_exists(int(daemon.read_text()))
    site.wait(lambda: site.cycle().lost == 1)
    shown = site.people.instance(job["slug"], 1)
    assert (shown["status"], shown["minor_status"]) == ("Terminated", "KilledByBatch")


@pytest.mark.parametrize("shift", ["+1h", "-1h"])
def test_a_site_whose_clock_is_wrong_works_like_any_other(
    served: Served, site: Site, monkeypatch: pytest.MonkeyPatch, shift: str
) -> None:
    """The worker nodes' clocks, and the agent's, differ from the server's by more than a lease of its work."""
    before = clock.now()
    job = site.submit(4, script=f"echo $(date +%s) > {site.folder}/$DWF_INSTANCE_ID")
    with faketime(shift) as wrong:
        for name, value in wrong.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            assert site.start_agent().wait(SECONDS) == 0
        site.wait(lambda: site.counts(job) == {"Done": 4})
    assert site.runs() == Counter({"1": 1, "2": 1, "3": 1, "4": 1})
    after = clock.now()
    for instance in served.database.instances.find():
        assert before <= instance["started_at"] <= instance["last_update"] <= after
    told = int((site.folder / "1").read_text())
    assert abs(abs(told - after.timestamp()) - 3600) < 1800, "the clock was not wrong"


def test_what_the_server_could_not_apply_is_told_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = site.submit(1, script="sleep 1000")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    kill_everything(site)
    site.cycle()
    with monkeypatch.context() as patched, pytest.raises(Unavailable, match="sends them again"):
        refused = {"result": "nok", "status": 503, "error": "this report was not applied: send it again"}
        patched.setattr(site.client, "report_many", lambda reports: [refused for _ in reports])
        site.cycle()
    assert site.cycle().lost == 1
    assert site.counts(job) == {"Failed": 1}


def test_a_clock_that_was_ahead_delays_no_conclusion(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = site.submit(1, script="sleep 1000")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    kill_everything(site)
    with monkeypatch.context() as patched:
        now = time.time()
        patched.setattr(time, "time", lambda: now + 3600)
        site.cycle()
    assert site.cycle().lost == 1


def kill_everything(site: Site) -> None:
    """Kill worker, runner and payload at once, as when a node loses power."""
    for words in ("DmpWorkflow.backend.local_worker", "DmpWorkflow.backend.runner"):
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if words in line and str(site.folder) in line:
                tree = process.children(recursive=True)
                for member in [process, *tree]:
                    member.kill()
    site.wait(lambda: all(map(site.local.spool.is_free, range(site.local.slots))))


def test_a_roll_back_stops_the_payload_and_runs_the_next_attempt(site: Site) -> None:
    job = site.submit(1, script='[ "$GO" = yes ] || sleep 1000', GO="no")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    overrides = {"MetaData": [{"name": "GO", "value": "yes", "var_type": "string"}]}
    site.people.roll_back(job["slug"], instances=[1], overrides=overrides)
    assert site.cycle().cancelled == 1
    site.run_all(job)
    detail = site.people.instance(job["slug"], 1)
    assert (detail["attempt"], [earlier["status"] for earlier in detail["attempts"]]) == (2, ["Running"])


def test_an_order_to_kill_goes_out_with_the_next_cycle(site: Site) -> None:
    job = site.submit(6, script="sleep 1000")
    site.cycle(chunk=5)
    site.wait(lambda: site.counts(job) == {"New": 1, "Running": 4, "Submitted": 1} and len(site.runs()) == 4)
    assert site.people.kill(job["slug"]) == {"result": "ok", "ended": 1, "ordered": 5}
    assert site.counts(job) == {"Terminated": 1, "Running": 4, "Submitted": 1}
    site.cycle()
    site.wait(lambda: site.cycle().in_system == 0)
    site.wait(lambda: bool(site.cycle()) and site.counts(job) == {"Terminated": 6})
    minors = {site.people.instance(job["slug"], number)["minor_status"] for number in range(1, 7)}
    assert minors == {"KilledByUser"}


def test_the_limit_of_waiting_jobs_is_apart_from_that_of_all(site: Site) -> None:
    site.submit(20, script="sleep 1000")
    assert site.cycle(in_system=15, pending=6).claimed == 6
    site.wait(lambda: site.cycle(chunk=0).pending == 2)
    assert site.cycle(in_system=15, pending=6).claimed == 4


def test_a_payload_whose_server_is_away_at_its_end_is_reported_by_the_agent(
    served: Served, site: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = site.submit(1, script=f"while ! [ -e {gate} ]; do sleep 0.1; done")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    (record,) = [found for _, found in site.local.spool.records("running")]
    served.process.send_signal(signal.SIGSTOP)
    children = [
        int(pid) for pid in Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    ]
    try:
        for child in children:
            os.kill(child, signal.SIGSTOP)
        gate.touch()
        outbox = outbox_folder(site.settings)
        site.wait(lambda: any("Done" in kept.read_text() for kept in outbox.glob("*/*.json")))
        os.kill(record["pid"], signal.SIGKILL)  # it would try for a while
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
        served.process.send_signal(signal.SIGCONT)
    site.wait(lambda: all(map(site.local.spool.is_free, range(4))))
    assert site.cycle().delivered >= 1
    assert site.counts(job) == {"Done": 1}


def test_two_agents_of_one_identity_do_not_meet(site: Site) -> None:
    folder = journal.agent_folder(Path(site.settings.site.workdir), "local")
    with journal.opened(folder), pytest.raises(Conflict, match="another agent is at work"):
        site.cycle()
    site.cycle()


def test_two_sites_get_their_own_work(served: Served, site: Site, tmp_path: Path) -> None:
    token = credentials.create(served.database, "cnaf-agent", "site", "CNAF")[0]
    other = Site(served, tmp_path / "cnaf", site="CNAF", token=token)
    try:
        here, there = site.submit(3), other.submit(2, site="CNAF")
        assert (site.cycle().claimed, other.cycle().claimed) == (3, 2)
        site.wait(lambda: site.counts(here) == {"Done": 3} and site.counts(there) == {"Done": 2})
    finally:
        other.close()


def test_a_batch_system_without_answer_is_reported_and_nothing_is_claimed(served: Served, site: Site) -> None:
    site.submit(1)
    spool = Path(site.settings.site.workdir) / ".local"
    spool.parent.mkdir(parents=True, exist_ok=True)
    spool.write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be used"):
        site.cycle()
    spool.unlink()
    agents = list(served.database.agents.find({"site": "local", "problem": {"$regex": "cannot be used"}}))
    assert len(agents) == 1
    assert served.database.instances.count_documents({"attempt": 0}) == 1


@pytest.mark.parametrize("call", ["endings", "cancel"])
def test_a_batch_system_that_fails_later_in_the_cycle_is_reported_too(
    call: str, served: Served, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise Unavailable(f"no answer to {call}")

    job = site.submit(1, script="sleep 1000")
    site.cycle()
    site.wait(lambda: site.counts(job) == {"Running": 1} and bool(site.runs()))
    monkeypatch.setattr(site.backend, call, silent)
    if call == "endings":
        kill_everything(site)
        site.cycle()
    else:
        site.people.kill(job["slug"])
    with pytest.raises(Unavailable, match=f"no answer to {call}"):
        site.cycle()
    (agent,) = served.database.agents.find({"site": "local", "problem": f"no answer to {call}"})
    assert agent["problem"]
    served.database.agents.delete_one({"_id": agent["_id"]})


def test_a_bad_override_fails_its_instance_alone(site: Site) -> None:
    good, bad = site.submit(1), site.submit(1, BATCH_OVERRIDE_MEMORY="lots")
    result = site.cycle()
    assert (result.claimed, result.submitted, len(result.problems)) == (2, 1, 1)
    shown = site.people.instance(bad["slug"], 1)
    assert (shown["status"], shown["minor_status"]) == ("Failed", "SubmissionFailed")
    assert "'lots' is no amount of memory" in shown["log"]
    site.wait(lambda: site.counts(good) == {"Done": 1})


def test_names_can_be_read_back() -> None:
    key = AttemptKey("6b04cc916a00b242cb9c95ef", 123456, 7)
    assert AttemptKey.from_name(key.name) == key
    assert AttemptKey.from_name("somebody-elses-job") is None


def test_an_unknown_backend_names_the_known_ones(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="HPCsystem = nqs: there is no such backend here: known are condor,"):
        make_backend("nqs", site.settings)


BATCH_NOW = """#!/bin/sh
setsid sh -c "echo \\$\\$ > {folder}/$1.pid; exec $2 $3" < /dev/null > /dev/null 2>&1 &
echo $1
"""
BATCH_STOP = """#!/bin/sh
for name in "$@"; do kill $(cat {folder}/$name.pid); rm {folder}/$name.pid; done 2>/dev/null
"""
BATCH_LIST = """#!/bin/sh
for file in {folder}/*.pid; do
    if [ -e "$file" ] && kill -0 $(cat $file) 2>/dev/null; then basename $file .pid; fi
done
"""


def test_the_documented_backend_runs_jobs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example for writers of backends, with programs that do what it says of them."""
    served.database.instances.delete_many({})
    programs, queue = tmp_path / "bin", tmp_path / "queue"
    queue.mkdir()
    programs.mkdir()
    for name, text in {"batch-now": BATCH_NOW, "batch-list": BATCH_LIST, "batch-stop": BATCH_STOP}.items():
        (programs / name).write_text(text.format(folder=queue))
        (programs / name).chmod(0o755)
    code = block("docs/batch/README.md", "outside backend")
    assert len(code.splitlines()) <= 30
    (tmp_path / "my_package.py").write_text(code)
    declare(tmp_path, "at", "my_package:AtBackend")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    site = Site(served, tmp_path / "site", "HPCsystem = at")
    job = site.submit(3)
    site.run_all(job)
    assert site.runs() == Counter({"1": 1, "2": 1, "3": 1})
    site.wait(lambda: site.cycle().in_system == 0)


def declare(folder: Path, name: str, target: str) -> None:
    """Write what an installed package says of its entry points."""
    info = folder / f"{name}_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[DmpWorkflow.backends]\n{name} = {target}\n")


def test_a_backend_of_another_package(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside.py").write_text(
        "from DmpWorkflow.backend.local import LocalBackend\n\n\nclass Outside(LocalBackend):\n    name = 'outside'\n"
    )
    declare(tmp_path, "outside", "outside:Outside")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_backend("outside", site.settings).name == "outside"
