"""A stand-in for OpenPBS and OpenLava, which no Debian package has: it prints what recordings of real ones hold.

It keeps state, runs jobs as processes, enforces limits, and has the exit codes and quirks that were seen. It is no
proof for a real system. ``standin.py STATE serve|stop`` runs it; ``standin.py STATE PROGRAM ARGUMENTS...`` is one of
its commands.
"""

import getpass
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

SLOTS, POLL, GRACE = 16, 0.1, 3.0
FIELDS = "id, task, name, script, held, cput, wall, memory"
SCHEMA = """
create table if not exists jobs (
    id integer, task integer, name text, script text, held integer, cput real, wall real, memory real,
    state text default 'Q', code integer, ran integer default 0, killed integer default 0, used_cpu real default 0,
    used_memory real default 0, used_wall real default 0, primary key (id, task)
)"""
SERVER = "pbs1"


class State:
    """The jobs, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.base = sqlite3.connect(folder / "jobs.db", timeout=60, isolation_level=None)
        self.base.row_factory = sqlite3.Row
        self.base.execute("pragma journal_mode=wal")
        self.base.execute(SCHEMA)

    @property
    def serves(self) -> bool:
        with suppress(OSError, ValueError):
            return psutil.pid_exists(int((self.folder / "pid").read_text()))
        return False

    def submit(self, tasks: list[int], **values: Any) -> int:
        self.base.execute("begin immediate")
        number = (self.base.execute("select max(id) from jobs").fetchone()[0] or 0) + 1
        marks = ",".join("?" * 8)
        rows = [(number, task, *(values[name.strip()] for name in FIELDS.split(",")[2:])) for task in tasks]
        self.base.executemany(f"insert into jobs ({FIELDS}) values ({marks})", rows)  # noqa: S608 - our own words
        self.base.execute("commit")
        return number

    def jobs(self) -> list[sqlite3.Row]:
        return self.base.execute("select * from jobs order by id, task").fetchall()

    def change(self, job: sqlite3.Row, **values: Any) -> None:
        words = ", ".join(f"{name} = ?" for name in values)
        statement = f"update jobs set {words} where id = ? and task = ?"  # noqa: S608 - our own words
        self.base.execute(statement, (*values.values(), job["id"], job["task"]))


def serve(state: State) -> None:
    """Start what waits; jobs are watched by processes of their own, which outlive this one."""
    (state.folder / "pid").write_text(str(os.getpid()))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        jobs = state.jobs()
        free = SLOTS - sum(job["state"] == "R" for job in jobs)
        for job in [job for job in jobs if job["state"] == "Q"]:
            if job["killed"]:
                state.change(job, state="F")
            elif not job["held"] and free > 0:
                free -= 1
                state.change(job, state="R", ran=1)
                watcher = [sys.executable, __file__, str(state.folder), "watch", str(job["id"]), str(job["task"])]
                subprocess.Popen(watcher, start_new_session=True, stdin=subprocess.DEVNULL)
        time.sleep(POLL)


def watch(state: State, number: int, task: int) -> None:
    """Run one job and note how it ended, in the words of the system that we stand in for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lsf = (state.folder / "lsf").exists()
    me = state.base.execute("select * from jobs where id = ? and task = ?", (number, task)).fetchone()
    script = state.folder / f"{number}.{task}.sh"
    script.write_text(me["script"])
    environment = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "USER": getpass.getuser()}
    if lsf:
        environment |= {"LSB_JOBID": str(number), "LSB_JOBINDEX": str(task)}
    else:
        environment |= {"PBS_JOBID": pbs_id(me), "PBS_O_WORKDIR": "/"}
        environment |= {"PBS_ARRAY_INDEX": str(task)} if task else {}
    job = subprocess.Popen(
        ["/bin/bash", script], env=environment, cwd="/", start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    start, reason, deadline, told = time.monotonic(), "", 0.0, 0.0
    while job.poll() is None:
        tree = family(job.pid)
        cpu, memory, wall = sum(map(cpu_of, tree)), sum(map(memory_of, tree)), time.monotonic() - start
        if time.monotonic() - told > 1:
            told = time.monotonic()
            state.change(me, used_cpu=max(cpu, 0.0), used_memory=memory, used_wall=wall)
        killed = state.base.execute("select killed from jobs where id = ? and task = ?", (number, task)).fetchone()[0]
        over = [("wall", wall, me["wall"]), ("cput", cpu, me["cput"]), ("memory", memory, 0 if lsf else me["memory"])]
        found = "killed" if killed else next((name for name, used, limit in over if limit and used > limit), "")
        if found and not reason:
            reason, deadline = found, time.monotonic() + GRACE
            send(tree, signal.SIGKILL if found == "cput" and not lsf else signal.SIGTERM)
        elif reason and time.monotonic() > deadline:
            send(tree, signal.SIGKILL)
        time.sleep(POLL)
    send(family(job.pid), signal.SIGKILL)
    code = lsf_code(job.returncode, reason) if lsf else pbs_code(job.returncode, reason)
    state.change(me, state="F", code=code, used_wall=time.monotonic() - start)


def pbs_code(code: int, reason: str) -> int:
    if reason in ("wall", "memory", "cput", "killed"):
        return {"wall": -29, "memory": -27, "cput": 265, "killed": 271}[reason]
    return code if code >= 0 else 128 - code


def lsf_code(code: int, reason: str) -> int:
    if reason in ("wall", "cput", "killed"):
        return {"wall": 140, "cput": 152, "killed": 130}[reason]
    if code == -signal.SIGKILL:
        return 0  # OpenLava says DONE when the job's own shell is killed
    return code if code >= 0 else 128 - code


def family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_of(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def memory_of(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.memory_info().rss) / 1024**2
    return 0.0


def send(tree: list[psutil.Process], number: signal.Signals) -> None:
    for process in tree:
        with suppress(psutil.Error):
            process.send_signal(number)


def fail(code: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def options(arguments: list[str], plain: str = "") -> tuple[dict[str, list[str]], list[str]]:
    """Split into options with values (those in ``plain`` have none) and the rest."""
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        found.setdefault(name, []).append("" if name[1:] in plain.split() else rest.pop(0))
    return found, rest


# OpenPBS


def pbs_id(job: sqlite3.Row) -> str:
    return f"{job['id']}[{job['task']}].{SERVER}" if job["task"] else f"{job['id']}.{SERVER}"


def qsub(state: State, arguments: list[str]) -> None:
    given, _ = options(arguments, "f h")
    limits = dict(item.split("=", 1) for item in given.get("-l", []))
    name = given["-N"][0]
    if len(name) > 230 or re.search(r"[\s/:\[]", name):
        fail(2, "qsub: illegal -N value")
    if given.get("-q", ["workq"]) != ["workq"]:
        fail(170, "qsub: Unknown queue")
    if unknown := set(limits) - {"select", "cput", "walltime"}:
        fail(187, f"qsub: Unknown resource: {unknown.pop()}")
    tasks = [0]
    if "-J" in given:
        first, last = map(int, given["-J"][0].split("-"))
        if last <= first:
            fail(2, "qsub: illegal -J value")
        if given.get("-r", ["y"]) != ["y"]:
            fail(2, "qsub: cannot submit non-rerunable Array Job")
        if last - first >= 100:
            fail(3, "qsub: Array job exceeds server or queue size limit")
        tasks = list(range(first, last + 1))
    memory = re.search(r"mem=(\d+)mb", limits.get("select", ""))
    number = state.submit(
        tasks, name=name, script=sys.stdin.read(), held="-h" in given, cput=float(limits.get("cput", 0)),
        wall=float(limits.get("walltime", 0)), memory=float(memory[1]) if memory else 0,
    )  # fmt: skip
    print(f"{number}[].{SERVER}" if tasks != [0] else f"{number}.{SERVER}")


def qstat(state: State, arguments: list[str]) -> None:
    given, ids = options(arguments, "x t f w")
    jobs = [job for job in state.jobs() if "-x" in given or job["state"] != "F"]
    code = 0
    if ids:
        known = {pbs_id(job): job for job in state.jobs()} | {f"{job['id']}[].{SERVER}": job for job in state.jobs()}
        for word in ids:
            if word not in known:
                code = 153
                print(f"qstat: Unknown Job Id {word}", file=sys.stderr)
        jobs = [job for job in jobs if pbs_id(job) in ids or f"{job['id']}[].{SERVER}" in ids]
    seen: set[int] = set()
    for job in jobs:
        if job["task"] and job["id"] not in seen:
            seen.add(job["id"])
            over = all(other["state"] == "F" for other in state.jobs() if other["id"] == job["id"])
            record(f"{job['id']}[].{SERVER}", job["name"], "F" if over else "B", ["array = True"])
        record(pbs_id(job), job["name"], pbs_state(state, job), details(job))
    sys.exit(code)


def pbs_state(state: State, job: sqlite3.Row) -> str:
    if job["state"] == "Q":
        return "H" if job["held"] else "Q"
    if job["state"] == "F" and job["task"]:
        rest = [other for other in state.jobs() if other["id"] == job["id"] and other["state"] != "F"]
        return "X" if rest else "F"  # elements expire until their parent ends
    return str(job["state"])


def details(job: sqlite3.Row) -> list[str]:
    lines = ["Hold_Types = u"] if job["held"] else []
    if job["cput"]:
        lines.append(f"Resource_List.cput = {clock(job['cput'])}")
    if job["ran"]:
        lines += ["resources_used.cput = 00:00:00", f"resources_used.mem = {int(job['used_memory'] * 1024)}kb"]
        lines.append(f"resources_used.walltime = {clock(job['used_wall'])}")
    if job["state"] == "F":
        element = job["task"] and not job["ran"]  # deleted before it ran: its substate is the array's
        lines.append(f"substate = {93 if element else 91 if job['killed'] else 93 if job['code'] else 92}")
        lines += [f"Exit_status = {job['code']}"] if job["code"] is not None else []
        lines += ["Exit_status = 1"] if element else []
    return [*lines, "Variable_List = PBS_O_HOME=/home/dampe,PBS_O_LANG=C.UTF-8,", "\tPBS_O_LOGNAME=dampe"]


def record(number: str, name: str, letter: str, lines: list[str]) -> None:
    print(f"Job Id: {number}\n    Job_Name = {name}\n    Job_Owner = {getpass.getuser()}@{SERVER}")
    print(f"    job_state = {letter}\n    queue = workq")
    for line in lines:
        print(line if line.startswith("\t") else f"    {line}")
    print()


def clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def qdel(state: State, arguments: list[str]) -> None:
    code = 0
    for word in arguments:
        found = [job for job in state.jobs() if pbs_id(job) == word]
        if not found:
            code = code or 153
        for job in found:
            code = code or (35 if job["state"] == "F" else 0)
            if job["state"] != "F":
                state.change(job, killed=1)
    if code:
        fail(code, f"qdel: {'Job has finished' if code == 35 else 'Unknown Job Id'}")


# OpenLava


def bsub(state: State, arguments: list[str]) -> None:
    given, _ = options(arguments, "H")
    queue = given.get("-q", ["normal"])[0]
    if len(given.get("-R", [])) > 1:
        fail(255, "Invalid syntax; the -R option was used more than once.\n. Job not submitted.")
    if queue != "normal":
        fail(255, f"{queue}: No such queue. Job not submitted.")
    match = re.fullmatch(r"([^\[/]+)(?:\[(\d+)-(\d+)\])?", given["-J"][0])
    if match is None or match[2] == "0":
        fail(255, "Bad job name. Job not submitted.")
    if int(match[3] or 0) > 100:
        fail(255, "Job array index too large. Job not submitted.")
    tasks = list(range(int(match[2]), int(match[3]) + 1)) if match[2] else [0]
    number = state.submit(
        tasks, name=match[1], script=sys.stdin.read(), held="-H" in given, cput=minutes(given.get("-c")),
        wall=minutes(given.get("-W")), memory=0,
    )  # fmt: skip
    print(f"Job <{number}> is submitted to {'queue' if '-q' in given else 'default queue'} <{queue}>.")


def minutes(words: list[str] | None) -> float:
    """Return the seconds to wait for a limit in [hours:]minutes: a tenth, so that tests need not."""
    hours, _, rest = f"0:{words[0]}".rpartition(":") if words else ("0", "", "0")
    return (int(hours.split(":")[-1]) * 60 + int(rest)) * 6.0


def bjobs(state: State, arguments: list[str]) -> None:
    given, ids = options(arguments, "a noheader")
    jobs = [job for job in state.jobs() if not ids or str(job["id"]) in ids]
    if not ids and "-a" not in given:
        jobs = [job for job in jobs if job["state"] != "F"]
    for job in jobs:
        stat = {"Q": "PSUSP" if job["held"] else "PEND", "R": "RUN"}.get(job["state"])
        stat = stat or ("DONE" if job["code"] == 0 else "EXIT")
        code = "" if job["state"] != "F" or job["code"] is None else job["code"]
        used = [f"{job['used_cpu']:.1f}", int(job["used_memory"] * 1024), int(job["used_wall"])]
        name = f"{job['name']}[{job['task']}]" if job["task"] else job["name"]
        print(job["id"], stat, code, *(used if job["ran"] else "---"), name, sep="|")
    missing = [word for word in ids if word not in {str(job["id"]) for job in jobs}]
    for word in missing:
        print(f"Job <{word}> is not found", file=sys.stderr)
    if missing:
        sys.exit(255)
    if not jobs:
        fail(255, "No unfinished job found")


def bkill(state: State, arguments: list[str]) -> None:
    code = 0
    for word in arguments:
        found = [job for job in state.jobs() if word in (f"{job['id']}[{job['task']}]", str(job["id"]))]
        for job in found:
            if job["state"] == "F":
                code = 255
                print(f"Job <{word}>: Job has already finished", file=sys.stderr)
            else:
                state.change(job, killed=1)
                print(f"Job <{word}> is being terminated")
        if not found:
            code = 255
            print(f"Job <{word}>: No matching job found", file=sys.stderr)
    sys.exit(code)


def bhist(state: State, arguments: list[str]) -> None:
    fail(255, "No matching job found")


COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "bsub": bsub, "bjobs": bjobs, "bkill": bkill, "bhist": bhist}


def main(folder: Path, program: str, *arguments: str) -> None:
    state = State(folder)
    if program == "serve":
        serve(state)
    elif program == "watch":
        watch(state, int(arguments[0]), int(arguments[1]))
    elif not state.serves:
        if program.startswith("b"):  # LSF's commands wait for ever
            print("batch system daemon not responding ... still trying", file=sys.stderr, flush=True)
            time.sleep(3600)
        fail(255 if program == "qstat" else 162, f"{program}: cannot connect to server {SERVER} (errno=15010)")
    else:
        COMMANDS[program](state, list(arguments))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
