"""How jobs ended, from what real systems printed of it; the names are ours, everything else is recorded."""

import json
import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from DmpWorkflow.backend.batch_names import batch_name
from DmpWorkflow.backend.interface import AttemptKey, Ending
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.utils.errors import Unavailable

JOB = "6b04cc916a00b242cb9c95ef"
KEYS = [AttemptKey(JOB, number, 1) for number in range(1, 5)]
ARRAY, LONE = batch_name(KEYS), KEYS[0].name
Ask = Callable[[str, dict[str, str], dict[AttemptKey, str]], dict[AttemptKey, Ending]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Ask a backend whose commands print these texts."""

    def endings(system: str, texts: dict[str, str], jobs: dict[AttemptKey, str]) -> dict[AttemptKey, Ending]:
        for name, text in texts.items():
            (tmp_path / f"{name}.txt").write_text(text)
            (tmp_path / name).write_text(f"#!/bin/sh\nsed s/@user@/$(id -un)/ {tmp_path}/{name}.txt\n")
            (tmp_path / name).chmod(0o755)
        site = replace(SiteSettings(), hpc_bin=str(tmp_path))
        return dict(make_backend(system, Settings(site=site)).endings(jobs))

    return endings


def told(ending: Ending) -> tuple[int | None, int | None, str]:
    return ending.exit_code, ending.signal, ending.minor_status


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("COMPLETED", "0:0", (0, None, "")),
        ("FAILED", "3:0", (3, None, "")),
        ("FAILED", "0:9", (None, 9, "KilledByBatch")),
        ("FAILED", "0:53", (None, None, "BatchCouldNotStart")),
        ("FAILED", "0:0", (None, None, "BatchCouldNotStart")),
        ("OUT_OF_MEMORY", "0:125", (None, None, "KilledByBatchMemoryLimit")),
        ("TIMEOUT", "0:0", (None, None, "KilledByBatchTimeLimit")),
        ("CANCELLED by 1000", "0:0", (None, None, "RemovedFromBatch")),
        ("NODE_FAIL", "0:0", (None, None, "NodeLost")),
        ("PREEMPTED", "0:15", (None, None, "KilledByBatch")),
    ],
)
def test_slurm_accounting(state: str, code: str, expected: object, ask: Ask) -> None:
    text = f"598|{state}|{code}|00:01:02|0|4000M|{LONE}\n598.batch|{state}|{code}|00:01:05|5312K||batch\n"
    found = ask("slurm", {"sacct": text}, {KEYS[0]: "598"})
    assert told(found[KEYS[0]]) == expected
    assert (found[KEYS[0]].cpu_seconds, found[KEYS[0]].memory_mb) == (65, 5312 / 1024)


def test_slurm_accounts_cancelled_elements_in_one_line(tmp_path: Path, ask: Ask) -> None:
    """And only if it is asked for their array: ``sacct -j 2156_3`` prints nothing."""
    text = f"2156_1|COMPLETED|0:0|00:00:00||1M|{ARRAY}\n2156_[2-4%1]|CANCELLED by 0|0:0|00:00:00||1M|{ARRAY}\n"
    found = ask("slurm", {"sacct": text}, {key: f"2156_{number}" for number, key in enumerate(KEYS, 1)})
    assert [found[key].minor_status for key in KEYS] == ["", *["RemovedFromBatch"] * 3]
    (tmp_path / "sacct").write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/asked; cat {tmp_path}/sacct.txt\n')
    ask_again = make_backend("slurm", Settings(site=replace(SiteSettings(), hpc_bin=str(tmp_path))))
    assert len(ask_again.endings({key: f"2156_{number}" for number, key in enumerate(KEYS, 1)})) == 4
    assert (tmp_path / "asked").read_text().endswith(" -j 2156\n")


SCONTROL = (
    "JobId=8 JobName=a b|c UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=0 Nice=0 Account=(null) QOS=(null) "
    "JobState=COMPLETED Reason=None Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "RunTime=00:00:01\n"
    f"JobId={{array}}JobName={{name}} UserId=me({os.geteuid()}) GroupId=root(0) MCS_label=N/A Priority=0 Nice=0 "
    "Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 "
    "Reboot=0 ExitCode={code} RunTime=00:00:01 TimeLimit=00:01:00\n"
)


@pytest.mark.parametrize(
    ("state", "reason", "code", "expected"),
    [
        ("COMPLETED", "None", "0:0", (0, None, "")),
        ("FAILED", "NonZeroExitCode", "3:0", (3, None, "")),
        ("FAILED", "JobLaunchFailure", "0:9", (None, 9, "KilledByBatch")),
        ("FAILED", "JobLaunchFailure", "0:53", (None, None, "BatchCouldNotStart")),
        ("FAILED", "BadConstraints", "0:0", (None, None, "BatchCouldNotStart")),
        ("OUT_OF_MEMORY", "OutOfMemory", "0:125", (None, None, "KilledByBatchMemoryLimit")),
        ("TIMEOUT", "TimeLimit", "0:15", (None, None, "KilledByBatchTimeLimit")),
        ("CANCELLED", "None", "0:15", (None, None, "RemovedFromBatch")),
        ("NODE_FAIL", "NodeDown", "0:0", (None, None, "NodeLost")),
        ("COMPLETING", "None", "0:0", None),
        ("RUNNING", "None", "0:0", None),
    ],
)
@pytest.mark.parametrize("array", ["20 ", "23 ArrayJobId=20 ArrayTaskId=1 ArrayTaskThrottle=2 "])
def test_slurm_without_accounting(array: str, state: str, reason: str, code: str, expected: object, ask: Ask) -> None:
    name = ARRAY if "Array" in array else LONE
    remembered = SCONTROL.format(array=array, name=name, state=state, reason=reason, code=code)
    found = ask("slurm", {"sacct": "", "scontrol": remembered}, {KEYS[0]: "20"})
    assert (told(found[KEYS[0]]) if KEYS[0] in found else None) == expected


def test_others_may_give_their_jobs_our_names(ask: Ask) -> None:
    """Queues show names to everybody: who copies one must not end what is ours."""
    remembered = SCONTROL.format(array="20 ", name=LONE, state="FAILED", reason="None", code="1:0")
    others = remembered.replace(f"me({os.geteuid()})", f"somebody({os.geteuid() + 1})")
    assert ask("slurm", {"sacct": "", "scontrol": others}, {KEYS[0]: "20"}) == {}
    assert KEYS[0] in ask("slurm", {"sacct": "", "scontrol": remembered}, {KEYS[0]: "20"})


def test_the_history_of_condor_is_asked_for_our_jobs_only(tmp_path: Path) -> None:
    """Many clusters at once are asked for by our attribute, which anybody may set."""
    (tmp_path / "condor_history").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked; echo "[]"\n')
    (tmp_path / "condor_history").chmod(0o755)
    backend = make_backend("condor", Settings(site=replace(SiteSettings(), hpc_bin=str(tmp_path))))
    assert backend.endings({KEYS[0]: ""}) == {}
    assert f'Owner == "{pwd.getpwuid(os.geteuid()).pw_name}"' in (tmp_path / "asked").read_text()


def test_slurm_accounts_jobs_of_any_name(ask: Ask) -> None:
    """Asked without ids, it tells of all jobs of the user, and names may contain the separator."""
    others = "597|COMPLETED|0:0|00:00:00||1M|a b|c\n597.batch|COMPLETED|0:0|00:00:00|1K||batch\n"
    text = f"{others}598|FAILED|3:0||||{LONE}\n"
    assert told(ask("slurm", {"sacct": text}, {KEYS[0]: ""})[KEYS[0]]) == (3, None, "")


QACCT = """\
==============================================================
qname        all.q
jobname      {name}
jobnumber    20
taskid       {task}
failed       {failed}
exit_status  {status}
ru_wallclock {wall}s
ru_maxrss    4.336KB
cpu          {cpu}s
category     {category}
"""


@pytest.mark.parametrize(
    ("failed", "status", "wall", "cpu", "category", "expected"),
    [
        ("0", "0", 2, 1, "NONE", (0, None, "")),
        ("0", "3", 2, 1, "NONE", (3, None, "")),
        ("0", "1", 2, 1, "-l h_vmem=400M", (1, None, "")),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", 2, 1.99, "-l h_vmem=400M",
         (None, 9, "KilledByBatchMemoryLimit")),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", 66, 1, "-l h_cpu=86400,h_rt=5,h_vmem=4000M",
         (None, 9, "KilledByBatchTimeLimit")),
        ("100 : assumedly after job", "137  (Killed)", 6, 4.978, "-l h_cpu=5,h_vmem=4000M",
         (None, 9, "KilledByBatchTimeLimit")),
        ("100 : assumedly after job", "137  (Killed)", 6, 1, "-l h_cpu=86400", (None, 9, "KilledByBatch")),
        ("26  : opening input/output file", "0", 0, 0, "NONE", (None, None, "BatchCouldNotStart")),
        ("38  : adding supplementary group", "0", 0, 0, "NONE", (None, None, "BatchCouldNotStart")),
        ("15  : in epilog", "3", 2, 1, "NONE", (3, None, "")),
        ("17  : through signal", "137", 2, 1, "NONE", (None, 9, "KilledByBatch")),
        ("19  : before writing exit_status", "0", 2, 0, "NONE", (None, None, "NodeLost")),
        ("21  : in recognizing job", "0", 0, 0, "NONE", (None, None, "NodeLost")),
    ],
)  # fmt: skip
def test_grid_engine(
    failed: str, status: str, wall: float, cpu: float, category: str, expected: object, ask: Ask
) -> None:
    text = QACCT.format(name=ARRAY, task=2, failed=failed, status=status, wall=wall, cpu=cpu, category=category)
    found = ask("sge", {"qacct": text}, {KEYS[1]: "20.2"})
    assert told(found[KEYS[1]]) == expected
    assert found[KEYS[1]].memory_mb == pytest.approx(4.336)


WITHOUT_HISTORY = {
    "slurm": {"sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1", "scontrol": "exit 0"},
    "sge": {  # before the first job has ended, and on a host that does not see the file
        "qacct": "echo '/opt/sge/default/common/accounting: No such file or directory' >&2\n"
        "echo 'no jobs running since startup'; exit 1"
    },
    "condor": {
        "condor_history": "echo 'Error: No history file is defined\n\nExtra Info: The variable HISTORY is not "
        "defined in your config file.' >&2; exit 1"
    },
}


@pytest.mark.parametrize("system", list(WITHOUT_HISTORY))
def test_a_system_without_history_tells_nothing(system: str, tmp_path: Path) -> None:
    """That is an answer: the site's grace time decides. A history that fails to answer is none."""
    site = replace(SiteSettings(), hpc_bin=str(tmp_path))
    backend = make_backend(system, Settings(site=site))
    for name, text in WITHOUT_HISTORY[system].items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert backend.endings({KEYS[0]: "20"}) == {}
    for name in WITHOUT_HISTORY[system]:
        (tmp_path / name).write_text("#!/bin/sh\necho 'Connection refused' >&2; exit 1\n")
    with pytest.raises(Unavailable, match="Connection refused"):
        backend.endings({KEYS[0]: "20"})


QSTAT = """\
Job Id: 17[].pbs1
    Job_Name = {name}
    Job_Owner = @user@@pbs1
    job_state = F
    array = True

Job Id: 17[3].pbs1
    Job_Name = {name}
    Job_Owner = @user@@pbs1
    resources_used.cput = 00:00:00
    resources_used.mem = 5312kb
    resources_used.walltime = 00:00:21
    job_state = X
    Resource_List.cput = 00:00:03
    substate = {substate}
    Variable_List = PBS_O_HOME=/home/dampe,PBS_O_LANG=C.UTF-8,
\tPBS_O_LOGNAME=dampe
    comment = Job run at Mon Nov 23 at 21:55 on (pbs1:ncpus=1) and failed
{status}
"""


@pytest.mark.parametrize(
    ("status", "substate", "expected"),
    [
        ("0", 92, (0, None, "")),
        ("3", 93, (3, None, "")),
        ("137", 93, (137, None, "")),
        ("271", 91, (None, 15, "RemovedFromBatch")),
        ("265", 93, (None, 9, "KilledByBatchTimeLimit")),
        ("-29", 93, (None, None, "KilledByBatchTimeLimit")),
        ("-27", 93, (None, None, "KilledByBatchMemoryLimit")),
        ("-28", 93, (None, None, "KilledByBatchTimeLimit")),
        ("-26", 93, (None, None, "KilledByBatchMemoryLimit")),
        ("-25", 93, (None, None, "KilledByBatch")),
        ("-24", 93, (None, None, "KilledByBatch")),
        ("-4", 93, (None, None, "NodeLost")),
        ("-3", 93, (None, None, "BatchCouldNotStart")),
        ("", 91, (None, None, "RemovedFromBatch")),
    ],
)
def test_pbs(status: str, substate: int, expected: object, ask: Ask) -> None:
    line = f"    Exit_status = {status}" if status else ""
    found = ask("pbs", {"qstat": QSTAT.format(name=ARRAY, substate=substate, status=line)}, {KEYS[2]: "17[3].pbs1"})
    assert told(found[KEYS[2]]) == expected
    assert found[KEYS[2]].memory_mb == 5312 / 1024


@pytest.mark.parametrize("substate", [91, 92, 93])
def test_pbs_removes_an_element_before_it_runs(substate: int, ask: Ask) -> None:
    """Recorded: ``substate`` is the array's, ``Exit_status`` is 1, and no resources were used."""
    text = (
        f"Job Id: 17[3].pbs1\n    Job_Name = {ARRAY}\n    Job_Owner = @user@@pbs1\n    job_state = F\n"
        f"    Resource_List.walltime = 00:01:00\n    substate = {substate}\n    comment = Subjob finished\n"
        "    Stageout_status = 1\n    Exit_status = 1\n    Submit_arguments = -J 0-19 arr.sh\n\n"
    )
    found = ask("pbs", {"qstat": text}, {KEYS[2]: "17[3].pbs1"})
    assert told(found[KEYS[2]]) == (None, None, "RemovedFromBatch")


@pytest.mark.parametrize(
    ("row", "expected", "cpu", "memory"),
    [
        ("DONE||0.0|6112|31", (0, None, ""), 0.0, 6112 / 1024),
        ("DONE||1 second(s)|522 MBytes|16038 second(s)", (0, None, ""), 1.0, 522.0),
        ("EXIT|77|0.1|9064|41", (77, None, ""), 0.1, 9064 / 1024),
        ("EXIT|130|0.0|6112|31", (None, 2, "RemovedFromBatch"), 0.0, 6112 / 1024),
        ("EXIT|140|0.0|6412|61", (None, 12, "KilledByBatchTimeLimit"), 0.0, 6412 / 1024),
        ("EXIT|152|57.6|5.2 Gbytes|71", (None, 24, "KilledByBatchTimeLimit"), 57.6, 5.2 * 1024),
        ("EXIT|137|0.0|-|0", (None, 9, "KilledByBatch"), 0.0, None),
        ("EXIT||-|-|-", (None, None, "RemovedFromBatch"), None, None),
        ("EXIT||0 second(s)||0 second(s)", (None, None, "RemovedFromBatch"), 0.0, None),
        ("EXIT||-|-1|62", (None, None, "NodeLost"), None, None),
        ("EXIT|255|0.0|-1|301", (255, None, ""), 0.0, None),
        ("EXIT|139|0.0|5796|0", (None, 11, "KilledByBatch"), 0.0, 5796 / 1024),
    ],
)
def test_lsf(row: str, expected: object, cpu: float | None, memory: float | None, ask: Ask) -> None:
    found = ask("lsf", {"bjobs": f"111|{row}|{ARRAY}[4]\n"}, {KEYS[3]: "111[4]"})
    assert told(found[KEYS[3]]) == expected
    assert (found[KEYS[3]].cpu_seconds, found[KEYS[3]].memory_mb) == (cpu, memory)


BHIST = """
Job Id <105>, Job Name <{name}>, User <lsfuser>, Project <default>, Command <./f
                     ail.sh>
Mon Nov 23 21:52:49: Submitted from host <vm> to Queue <normal>, CWD <$HOME/w>,
                     Output File <fail.%J.out>, Error File <fail.%J.err>;
Mon Nov 23 21:52:57: {end}

Summary of time in seconds spent in various states by  Mon Nov 23 21:52:57
"""


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("Exited with exit code 3. The CPU time used is 0.0 seconds;\n                     ", (3, None, "")),
        ("Exited with exit code 130. The CPU time used is 0.0 second\n                     s;",
         (None, 2, "RemovedFromBatch")),
        ("Done successfully. The CPU time used is 0.5 seconds;", (0, None, "")),
        ("Done successfully. The CPU time used is 0.0 seconds;\n"
         "Mon Nov 23 21:57:57: Post job process done successfully;", (0, None, "")),
        ("Exited by signal 9. The CPU time used is 0.5 seconds;", (None, 9, "KilledByBatch")),
        ("Exited with exit code 130. The CPU time used is 99999999.9\n                     seconds;",
         (None, 2, "RemovedFromBatch")),
        ("Unknown; unable to reach the execution host;\nMon Nov 23 22:06:01: Running;\n"
         "Mon Nov 23 22:06:01: Exited. The CPU time used is unknown;", (None, None, "NodeLost")),
        ("Signal <KILL> requested by user or administrator <lsfuser>\n                     ;\n"
         "Mon Nov 23 21:52:57: Exited;", (None, None, "RemovedFromBatch")),
        ("Exited; job has been forced to exit. The CPU time used is unknown;", (None, None, "RemovedFromBatch")),
        ("Exited with exit code 3. The CPU time used is 0.5 seconds;\n"
         "Mon Nov 23 21:53:57: Exited; job will be requeued and rerun;", (3, None, "")),
        ("Exited with exit code 3. The CPU time used is 0.5 seconds;\n"
         "Mon Nov 23 21:53:01: Pending: Job has been requeued;\n"
         "Mon Nov 23 21:53:57: Done successfully. The CPU time used is 0.5 seconds;", (0, None, "")),
    ],
)  # fmt: skip
def test_lsf_of_old(end: str, expected: object, ask: Ask) -> None:
    found = ask("lsf", {"bjobs": "", "bhist": BHIST.format(name=LONE, end=end)}, {KEYS[0]: "105"})
    assert told(found[KEYS[0]]) == expected


def test_lsf_of_old_by_the_elements_of_an_array(ask: Ask) -> None:
    blocks = []
    for number in (1, 2):
        end = f"Exited with exit code {number}. The CPU time used is 0.5 seconds;"
        blocks.append(BHIST.format(name=f"{ARRAY}[{number}]", end=end).replace("<105>", f"<105[{number}]>"))
    text = f"{'-' * 78}\n".join(blocks)
    found = ask("lsf", {"bjobs": "", "bhist": text}, {KEYS[0]: "105[1]", KEYS[1]: "105[2]"})
    assert {key: found[key].exit_code for key in found} == {KEYS[0]: 1, KEYS[1]: 2}


def test_lsf_without_its_event_log(tmp_path: Path) -> None:
    """bhist reads the log itself, which not every host can; what bjobs knows is told all the same."""
    (tmp_path / "bjobs").write_text(f"#!/bin/sh\necho '105|DONE|0|0.0|4492|1|{LONE}'\n")
    (tmp_path / "bhist").write_text("#!/bin/sh\necho 'lsb.events: No such file or directory' >&2; exit 255\n")
    for name in ("bjobs", "bhist"):
        (tmp_path / name).chmod(0o755)
    backend = make_backend("lsf", Settings(site=replace(SiteSettings(), hpc_bin=str(tmp_path))))
    assert set(backend.endings({KEYS[0]: "105", KEYS[1]: "106"})) == {KEYS[0]}


def test_condor_is_asked_for_any_number_of_clusters(ask: Ask) -> None:
    """An expression with all their numbers would be longer than one argument may be."""
    lost = {AttemptKey(JOB, number, 1): f"{1_000_000 + number}.0" for number in range(1, 8001)}
    text = f'[{{"ClusterId": 1000001, "ProcId": 0, "DwfName": "{LONE}", "JobStatus": 4, "ExitCode": 3}}]'
    assert told(ask("condor", {"condor_history": text}, lost)[KEYS[0]]) == (3, None, "")


PERIODIC = "The job attribute PeriodicRemove expression '...' evaluated to TRUE"


@pytest.mark.parametrize(
    ("ad", "expected"),
    [
        ({"JobStatus": 4, "ExitCode": 0, "ExitBySignal": False}, (0, None, "")),
        ({"JobStatus": 4, "ExitCode": 3, "ExitBySignal": False}, (3, None, "")),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, (None, 9, "KilledByBatch")),
        ({"JobStatus": 3, "LastJobStatus": 2, "RemoveReason": "via condor_rm (by user dampe)", "ExitSignal": 15,
          "ExitBySignal": True}, (None, None, "RemovedFromBatch")),
        ({"JobStatus": 3, "LastJobStatus": 2, "RemoveReason": PERIODIC, "ResidentSetSize_RAW": 410000,
          "DwfMemoryKb": 204800}, (None, None, "KilledByBatchMemoryLimit")),
        ({"JobStatus": 3, "LastJobStatus": 2, "RemoveReason": PERIODIC, "ResidentSetSize_RAW": 1500,
          "DwfMemoryKb": 204800}, (None, None, "KilledByBatchTimeLimit")),
        ({"JobStatus": 3, "LastJobStatus": 1, "RemoveReason": PERIODIC}, (None, None, "NodeLost")),
        ({"JobStatus": 3, "LastJobStatus": 5, "LastHoldReasonCode": 34, "RemoveReason": PERIODIC},
         (None, None, "KilledByBatchMemoryLimit")),
        ({"JobStatus": 3, "LastJobStatus": 5, "LastHoldReasonCode": 46, "RemoveReason": PERIODIC},
         (None, None, "KilledByBatchTimeLimit")),
        ({"JobStatus": 3, "LastJobStatus": 2,
          "RemoveReason": "The system macro SYSTEM_PERIODIC_REMOVE expression '...' evaluated to TRUE"},
         (None, None, "KilledByBatch")),
    ],
)  # fmt: skip
def test_condor(ad: dict[str, object], expected: object, ask: Ask) -> None:
    text = json.dumps([{"ClusterId": 12, "ProcId": 0, "DwfName": LONE, "RemoteUserCpu": 3.0, **ad}])
    found = ask("condor", {"condor_history": text}, {KEYS[0]: "12.0"})
    assert told(found[KEYS[0]]) == expected
    assert found[KEYS[0]].cpu_seconds == 3.0
