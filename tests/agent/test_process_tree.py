"""Process trees as real processes. Each test works in a process of its own: a subreaper must not be pytest."""

import json
import subprocess
import sys
from typing import Any

import psutil
import pytest

from DmpWorkflow.backend.process_tree import ProcessTree
from DmpWorkflow.backend.run_file import RunLimits
from DmpWorkflow.backend.watchdog import EXCEEDING_CPU_TIME, EXCEEDING_MEMORY, Usage, verdict
from tests.agent.runner_support import PATIENCE

BEFORE = """
import json, os, subprocess, sys, psutil
from DmpWorkflow.backend.process_tree import ProcessTree, become_subreaper
become_subreaper()
tree = ProcessTree()

def start(script):
    child = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    tree.root = child.pid
    return child

def tell(**values):
    print(json.dumps(values))
"""
BURN = "import time; [None for _ in iter(lambda: time.process_time() < 0.3, False)]"


def in_own_process(script: str) -> Any:
    """Run ``script`` after BEFORE in a new interpreter, and return what it tells.

    A shell forks it: what we start ourselves would have our own peak of memory as its own (Linux keeps that at exec).
    """
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", BEFORE + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cpu_time_of_ended_children_counts() -> None:
    told = in_own_process(f'''
child = start("""python3 -c '{BURN}'; python3 -c '{BURN}'; echo done; read line""")
child.stdout.readline()
tell(cpu=tree.sample().cpu_seconds)
tree.stop(0)
child.wait()
child.stdout.close()
''')
    assert told["cpu"] >= 0.55


def test_cpu_time_never_decreases_and_is_not_counted_twice() -> None:
    told = in_own_process(f'''
child = start("""python3 -c '{BURN}'""")
seen = []
while child.poll() is None:
    seen.append(tree.sample().cpu_seconds)
seen.append(tree.sample().cpu_seconds)
import resource
used = resource.getrusage(resource.RUSAGE_CHILDREN)
tell(sorted=seen == sorted(seen), last=seen[-1], true=used.ru_utime + used.ru_stime)
child.stdout.close()
''')
    assert told["sorted"]
    assert told["last"] == pytest.approx(told["true"], abs=0.05)


def test_time_of_children_that_nobody_waits_for_stays() -> None:
    told = in_own_process(f'''
import signal
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
script = """
import os, signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then drops the times of children
read, write = os.pipe()
pid = os.fork()
if not pid:
    {BURN}
    print("burnt", flush=True)
    os.read(read, 1)
    os._exit(0)
sys.stdin.readline()
os.write(write, b"x")
while os.path.exists(f"/proc/{{pid}}"):
    os.sched_yield()
print("gone", flush=True)
sys.stdin.readline()
"""
child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
tree.root = child.pid
child.stdout.readline()
before = tree.sample().cpu_seconds
child.stdin.write(chr(10)); child.stdin.flush()
child.stdout.readline()
after = tree.sample().cpu_seconds
tell(before=before, after=after)
child.communicate(chr(10))
''')
    assert told["after"] >= told["before"] >= 0.3


def test_detached_daemon_is_seen_and_stopped() -> None:
    told = in_own_process("""
child = start("(setsid sleep 600 & echo $!)")
daemon = int(child.stdout.readline())
child.wait()
seen = daemon in [process.pid for process in tree.members()]
tree.stop(30)
tell(seen=seen, left=psutil.pid_exists(daemon))
child.stdout.close()
""")
    assert told == {"seen": True, "left": False}


def test_processes_started_before_are_let_alone() -> None:
    told = in_own_process("""
other = subprocess.Popen(["sleep", "600"])
tree = ProcessTree()
child = start("sleep 600 & echo; wait")
child.stdout.readline()
tree.stop(30)
child.wait()
tell(other=other.poll())
other.kill(); other.wait()
child.stdout.close()
""")
    assert told == {"other": None}


def test_one_that_ignores_term_is_killed_with_all_it_forked() -> None:
    told = in_own_process("""
child = start("trap '' TERM; (trap '' TERM; echo; while :; do sleep 600; done) & wait; wait")
child.stdout.readline()
members = tree.members()
tree.stop(0.1)
child.wait()
tell(many=len(members) >= 2, left=[process.pid for process in members if process.is_running()])
child.stdout.close()
""")
    assert told == {"many": True, "left": []}


LOOK_AND_LET_IT_FORK = """
inside, gate = os.pipe()
child = subprocess.Popen(
    ["bash", "-c", "read; setsid sleep 600 & echo $!"], stdin=inside, stdout=subprocess.PIPE, text=True,
    start_new_session=True,
)
look, forked = tree._after_reaping, []

def look_and_let_it_fork():
    seen = look()
    if not forked:
        os.write(gate, b"go on" + bytes([10]))
        forked.append(int(child.stdout.readline()))
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            pass
    return seen

tree._after_reaping = look_and_let_it_fork
"""


@pytest.mark.parametrize("is_root", [True, False])
def test_what_was_started_while_one_looked_is_stopped_though_its_parent_has_ended(is_root: bool) -> None:
    told = in_own_process(
        LOOK_AND_LET_IT_FORK
        + f"""
tree.root = child.pid if {is_root} else None
tree.stop(30)
tell(left=psutil.pid_exists(forked[0]))
child.stdout.close()
"""
    )
    assert told == {"left": False}


def test_term_comes_once_and_lets_a_program_finish() -> None:
    told = in_own_process("""
child = start("trap 'echo term; sleep 0.3; exit 3' TERM; echo up; while :; do sleep 0.01; done")
child.stdout.readline()
tree.stop(30)
tell(said=child.stdout.read(), code=child.wait())
child.stdout.close()
""")
    assert told["code"] == 3
    assert told["said"] == "term\n"


def test_peak_of_a_short_lived_child_survives() -> None:
    told = in_own_process("""
child = start("python3 -c 'bytearray(200 * 1024**2)'; echo; read line")
child.stdout.readline()
tree.stop(30)
child.wait()
usage = tree.sample()
tell(now=usage.memory_mb, peak=usage.peak_mb)
child.stdout.close()
""")
    assert told["now"] == 0
    assert told["peak"] >= 200


def test_tree_without_processes_uses_nothing() -> None:
    assert ProcessTree().sample().memory_mb == 0
    assert psutil.Process().is_running()


@pytest.mark.parametrize(
    ("usage", "minor_status"),
    [
        (Usage(0, 949, 2000), None),  # the peak is past
        (Usage(0, 950, 950), EXCEEDING_MEMORY),
        (Usage(97, 0, 0), None),
        (Usage(98, 0, 0), EXCEEDING_CPU_TIME),
        (Usage(98, 950, 950), EXCEEDING_MEMORY),
    ],
)
def test_verdict(usage: Usage, minor_status: str | None) -> None:
    assert verdict(usage, RunLimits(memory_mb=1000, cpu_seconds=100, ratio_mem=0.95, ratio_cpu=0.98)) == minor_status


def test_no_limit_means_no_verdict() -> None:
    assert verdict(Usage(1e9, 1e9, 1e9), RunLimits()) is None
