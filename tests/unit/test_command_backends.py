"""Backends whose commands are missing, slow, or print something else. The programs here are made to misbehave."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from DmpWorkflow.backend.commands import Commands
from DmpWorkflow.backend.interface import AttemptKey, Submission
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Unavailable

JOB = "6b04cc916a00b242cb9c95ef"
KEY = AttemptKey(JOB, 7, 1)
QUERY = {"slurm": "squeue", "sge": "qstat", "condor": "condor_q", "pbs": "qstat", "lsf": "bjobs"}
SUBMIT = {"slurm": "sbatch", "sge": "qsub", "condor": "condor_submit", "pbs": "qsub", "lsf": "bsub"}
STATES = {
    "slurm": "echo '12|12|N/A|{state}|None|{name}'",
    "sge": "echo '<job_info><queue_info><job_list><JB_job_number>12</JB_job_number><JB_name>{name}</JB_name>"
    "<state>{state}</state></job_list></queue_info></job_info>'",
    "condor": 'echo \'[{{"ClusterId": 12, "ProcId": 0, "DwfName": "{name}", "JobStatus": {state}}}]\'',
    "pbs": "printf 'Job Id: 12.pbs1\\n    Job_Name = {name}\\n    Job_Owner = '; id -un;"
    "printf '    job_state = {state}\\n'",
    "lsf": "echo '12|{state}||-|-|-|{name}'",
}
DOCUMENTED: dict[str, dict[str, str | None]] = {
    "slurm": {"PENDING": "Submitted", "CONFIGURING": "Submitted", "RUNNING": "Running", "COMPLETING": "Running",
              "SUSPENDED": "Suspended", "SPECIAL_EXIT": "Suspended", "COMPLETED": None, "BOGUS": "Unknown"},
    "sge": {"qw": "Submitted", "hqw": "Suspended", "Eqw": "Suspended", "t": "Running", "r": "Running",
            "Rr": "Running", "dr": "Running", "s": "Suspended", "S": "Suspended", "T": "Suspended",
            "Rq": "Submitted", "hr": "Running", "hRwq": "Suspended", "Ehqw": "Suspended", "tS": "Suspended",
            "Rt": "Running", "dRs": "Running", "?": "Unknown"},
    "condor": {"1": "Submitted", "2": "Running", "3": None, "4": None, "5": "Suspended", "6": "Running",
               "7": "Suspended", "42": "Unknown"},
    "pbs": {"Q": "Submitted", "T": "Submitted", "W": "Submitted", "R": "Running", "E": "Running", "H": "Suspended",
            "S": "Suspended", "U": "Suspended", "F": None, "X": None, "M": None, "?": "Unknown"},
    "lsf": {"PEND": "Submitted", "WAIT": "Submitted", "PROV": "Submitted", "RUN": "Running", "PSUSP": "Suspended",
            "USUSP": "Suspended", "SSUSP": "Suspended", "UNKWN": "Unknown", "ZOMBI": "Unknown", "DONE": None,
            "EXIT": None, "BOGUS": "Unknown"},
}  # fmt: skip
Make = Callable[..., None]


@pytest.fixture
def programs(tmp_path: Path) -> Make:
    """Make a program of a few shell words."""

    def make(name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return make


def settings(folder: Path, seconds: float = 10) -> Settings:
    return Settings(site=replace(SiteSettings(), hpc_bin=str(folder), hpc_timeout=seconds))


@pytest.mark.parametrize("system", list(QUERY))
@pytest.mark.parametrize("text", ["echo garbage of 2 | lines", "echo no daemon >&2; exit 1", "echo; echo '<html>|'"])
def test_garbage_is_no_answer(system: str, text: str, tmp_path: Path, programs: Make) -> None:
    programs(QUERY[system], text)
    with pytest.raises(Unavailable, match=QUERY[system]):
        make_backend(system, settings(tmp_path)).query()


@pytest.mark.parametrize("system", list(QUERY))
def test_a_silent_system_is_given_up(system: str, tmp_path: Path, programs: Make) -> None:
    programs(QUERY[system], "sleep 1000 & sleep 1000")
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer within 0.2 s .*HPCtimeout"):
        make_backend(system, settings(tmp_path, 0.2)).query()
    assert time.monotonic() - start < 500  # not the 1000 of the program


@pytest.mark.parametrize(
    ("system", "state", "status"), [(name, *pair) for name, table in DOCUMENTED.items() for pair in table.items()]
)
def test_states(
    system: str, state: str, status: str | None, tmp_path: Path, programs: Make, caplog: pytest.LogCaptureFixture
) -> None:
    programs(QUERY[system], STATES[system].format(state=state, name=KEY.name))
    with caplog.at_level(logging.WARNING):
        found = make_backend(system, settings(tmp_path)).query()
    assert {key: str(job.status) for key, job in found.items()} == ({KEY: status} if status else {})
    documented = state not in ("BOGUS", "42", "?")
    assert ("is not known" in caplog.text) is not documented


@pytest.mark.parametrize("system", list(SUBMIT))
def test_a_submission_that_is_not_answered_is_left_for_later(system: str, tmp_path: Path, programs: Make) -> None:
    programs(SUBMIT[system], "echo 'some words' ")
    needs = BatchNeeds(1000, 3600)
    jobs = [Submission(AttemptKey(JOB, number, 1), tmp_path / "script", number, needs) for number in range(1, 4)]
    results = make_backend(system, settings(tmp_path)).submit(jobs)
    assert [(result.key, result.batch_id, result.error) for result in results] == [
        (job.key, None, "") for job in jobs
    ]
    assert all("cannot be understood" in result.later for result in results)


def test_a_missing_program_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="squeue is not in HPCbin"):
        Commands(str(tmp_path)).path("squeue")


def test_words_of_a_job_reach_no_shell(tmp_path: Path, programs: Make) -> None:
    programs("sbatch", f'printf "%s\\n" "$@" > {tmp_path}/arguments; echo 17')
    needs = BatchNeeds(1000, 3600, extra="--comment='a b' $(touch /nowhere) ;", requirements="a&b;c")
    job = Submission(KEY, tmp_path / "script", 1, needs)
    assert make_backend("slurm", settings(tmp_path)).submit([job])[0].batch_id == "17"
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert {"--comment=a b", "$(touch", "--constraint=a&b;c"} <= set(arguments)


def test_titles_are_no_macros_of_condor(tmp_path: Path, programs: Make) -> None:
    programs("condor_submit", f"cat > {tmp_path}/text; echo 5.0 - 5.1")
    folders = [tmp_path / "a $(Name) b" / "01", tmp_path / "c" / "02"]
    jobs = [
        Submission(AttemptKey(JOB, number, 1), folder / "script", number, BatchNeeds(1000, 3600))
        for number, folder in enumerate(folders, 1)
    ]
    results = make_backend("condor", settings(tmp_path)).submit(jobs)
    assert [result.batch_id for result in results] == ["5.0", "5.1"]
    text = (tmp_path / "text").read_text()
    assert f"{jobs[0].key.name} 1 {tmp_path}/a $(DOLLAR)(Name) b/01/script\n" in text


def test_an_array_that_is_too_large_goes_out_in_halves(tmp_path: Path, programs: Make) -> None:
    programs(
        "sbatch",
        'for word in "$@"; do case $word in --array=1-*) if [ "${word#--array=1-}" -gt 3 ]; then '
        'echo "Invalid job array specification" >&2; exit 1; fi; esac; done; echo $(date +%N | sed "s/^0*/1/")',
    )
    jobs = [
        Submission(AttemptKey(JOB, number, 1), tmp_path / "script", number, BatchNeeds(1, 1))
        for number in range(1, 11)
    ]
    results = make_backend("slurm", settings(tmp_path)).submit(jobs)
    assert all(result.batch_id for result in results)
    assert [result.key for result in results] == [job.key for job in jobs]
    assert len({str(result.batch_id).partition("_")[0] for result in results}) == 4


def test_only_the_part_that_was_refused_is_refused(tmp_path: Path, programs: Make) -> None:
    programs("sbatch", 'case "$*" in *partition=bad*) echo "invalid partition" >&2; exit 1;; esac; echo 17')
    good, bad = BatchNeeds(1, 1), BatchNeeds(1, 1, queue="bad")
    jobs = [
        Submission(AttemptKey(JOB, number, 1), tmp_path / "script", number, needs)
        for number, needs in enumerate([good, bad, good, bad], 1)
    ]
    results = make_backend("slurm", settings(tmp_path)).submit(jobs)
    assert [result.batch_id for result in results] == ["17_1", None, "17_2", None]
    assert [result.error for result in results][1::2] == ["sbatch: invalid partition"] * 2


def test_held_jobs_of_slurm_by_their_reasons(tmp_path: Path, programs: Make) -> None:
    programs("squeue", f"echo '20|20|[3-5,9%2]|PENDING|JobHeldUser|dwf-{JOB}-1+9-1'")
    found = make_backend("slurm", settings(tmp_path)).query()
    assert sorted(key.instance_id for key in found) == [3, 4, 5, 9]
    assert {(job.status, job.held, job.detail) for job in found.values()} == {
        (MajorStatus.SUSPENDED, True, "JobHeldUser")
    }


def test_a_system_that_is_down_is_asked_once(tmp_path: Path, programs: Make) -> None:
    """However many groups there are, each further call would only wait for its time limit again."""
    programs("sbatch", f"echo x >> {tmp_path}/calls; echo 'Unable to contact slurm controller' >&2; exit 1")
    jobs = [
        Submission(AttemptKey(JOB, number, 1), tmp_path / "script", number, BatchNeeds(1000 * number, 1))
        for number in range(1, 4)
    ]
    results = make_backend("slurm", settings(tmp_path)).submit(jobs)
    assert [("Unable to contact" in result.later, result.error) for result in results] == [(True, "")] * 3
    assert (tmp_path / "calls").read_text().splitlines() == ["x"]


@pytest.mark.parametrize("system", list(SUBMIT))
def test_extras_that_are_no_words_refuse_their_jobs_only(system: str, tmp_path: Path, programs: Make) -> None:
    programs(SUBMIT[system], "exit 0")
    bad = BatchNeeds(1000, 3600, extra="--comment='never closed")
    job = Submission(KEY, tmp_path / "script", 1, bad)
    assert "No closing quotation" in make_backend(system, settings(tmp_path)).submit([job])[0].error


NEEDS = BatchNeeds(1000, 3600)


def submissions(folder: Path, number: int, needs: BatchNeeds = NEEDS) -> list[Submission]:
    return [
        Submission(AttemptKey(JOB, instance, 1), folder / "script", instance, needs)
        for instance in range(1, number + 1)
    ]


def test_pbs_takes_only_arrays_that_may_start_again(tmp_path: Path, programs: Make) -> None:
    """As qsub does: it refuses ``-J`` and ``-r n`` together, in either order."""
    programs(
        "qsub",
        f'echo "$*" >> {tmp_path}/calls; case "$*" in *-J*"-r n"*|*"-r n"*-J*) '
        'echo "qsub: cannot submit non-rerunable Array Job" >&2; exit 2;; *-J*) echo "17[].pbs1";; '
        "*) echo 18.pbs1;; esac",
    )
    backend = make_backend("pbs", settings(tmp_path))
    assert [result.batch_id for result in backend.submit(submissions(tmp_path, 2))] == ["17[1].pbs1", "17[2].pbs1"]
    assert [result.batch_id for result in backend.submit(submissions(tmp_path, 1))] == ["18.pbs1"]
    array, lone = (tmp_path / "calls").read_text().splitlines()
    assert "-r y -J 1-2 " in array and "-r n " in lone
    assert array.startswith("-f ") and lone.startswith("-f "), (
        "no process in the background that outlives a time limit"
    )


AT_LIMIT = {
    "pbs": ("qsub: would exceed queue generic's per-user limit", 38, "-J 1-", "17[].pbs1", "17.pbs1", "-q small"),
    "lsf": ("The destination queue has reached its job limit. Job not submitted.", 255, "[1-",
            "Job <17> is submitted to queue <normal>.", "Job <17> is submitted to queue <normal>.", "-q small"),
}  # fmt: skip


@pytest.mark.parametrize("system", list(AT_LIMIT))
def test_at_a_limit_what_fits_goes_out_and_other_queues_go_on(system: str, tmp_path: Path, programs: Make) -> None:
    """The queue ``small`` has room for 4 jobs: an array of more is refused whole, however often it is tried."""
    message, code, mark, array, lone, small = AT_LIMIT[system]
    (tmp_path / "room").write_text("4")
    programs(
        SUBMIT[system],
        f"""
        words="$*"; number=1
        case $words in *"{mark}"*) number=${{words#*"{mark}"}}; number=${{number%%[] ]*}};; esac
        case $words in *"{small}"*)
            room=$(cat {tmp_path}/room)
            if [ "$number" -gt "$room" ]; then echo "{message}" >&2; echo x >> {tmp_path}/refused; exit {code}; fi
            echo $((room - number)) > {tmp_path}/room;;
        esac
        if [ "$number" = 1 ]; then echo "{lone}"; else echo "{array}"; fi
        """,
    )
    first = submissions(tmp_path, 20, BatchNeeds(1000, 3600, queue="small"))
    other = [replace(job, key=job.key._replace(instance_id=99), needs=NEEDS) for job in first[:1]]
    results = make_backend(system, settings(tmp_path)).submit([*first, *other])
    assert [bool(result.batch_id) for result in results] == [True] * 4 + [False] * 16 + [True]
    assert all(message in result.later and not result.error for result in results[4:20])
    assert len((tmp_path / "refused").read_text().splitlines()) < 8, "one by one would be 17"


@pytest.mark.parametrize(
    ("system", "code", "message", "later"),
    [
        ("pbs", 187, "qsub: Unknown resource: bogusres", False),
        ("pbs", 170, "qsub: Unknown queue", False),
        ("pbs", 188, "qsub: Job violates queue and/or server resource limits", False),
        ("pbs", 173, "qsub: Queue is not enabled", False),
        ("pbs", 255, "qsub: directive error: -r n", False),
        ("pbs", 162, "Connection refused\nqsub: cannot connect to server pbs1 (errno=15010)", True),
        ("pbs", 38, "qsub: Maximum number of jobs in 'Q' state already in complex", True),
        ("pbs", 39, "qsub: would exceed limit on resource ncpus in queue workq", True),
        ("lsf", 255, "Too many processors requested. Job not submitted.", False),
        ("lsf", 255, "nosuchqueue: No such queue. Job not submitted.", False),
        ("lsf", 255, "RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.", False),
        ("lsf", 255, "User permission denied. Job not submitted.", False),
        ("lsf", 255, "Failed in an LSF library call: LIM is down; try later. Job not submitted.", True),
        ("lsf", 255, "Failed in an LSF library call: Connection reset. Job not submitted.", True),
        ("lsf", 255, "Connection refused by server. Job not submitted.", True),
        ("lsf", 255, "User <u>: Pending job threshold reached. Retrying in 60 seconds...", True),
    ],
)
def test_refusals_and_bad_weather(
    system: str, code: int, message: str, later: bool, tmp_path: Path, programs: Make
) -> None:
    (tmp_path / "message").write_text(message)
    programs(SUBMIT[system], f"cat {tmp_path}/message >&2; exit {code}")
    (result,) = make_backend(system, settings(tmp_path)).submit(submissions(tmp_path, 1))
    said = message.replace("\n", "; ")
    assert (said in result.later, said in result.error) == (later, not later)


def test_an_unknown_host_in_a_queue_is_refused(tmp_path: Path, programs: Make) -> None:
    """It would keep all others waiting as if the server were down, which it is for a queue of our own."""
    message = "Unknown Host.\\nqsub: cannot connect to server pbs1 (errno=15008)"
    programs("qsub", f"printf '{message}' >&2; exit 160")
    backend = make_backend("pbs", settings(tmp_path))
    (elsewhere,) = backend.submit(submissions(tmp_path, 1, BatchNeeds(1000, 3600, queue="workq@nosuchhost")))
    (here,) = backend.submit(submissions(tmp_path, 1, BatchNeeds(1000, 3600, queue="workq")))
    assert (bool(elsewhere.error), bool(here.error), bool(here.later)) == (True, False, True)


@pytest.mark.parametrize(
    ("cores", "requirements", "expected"),
    [
        (1, "", []),
        (1, "rusage[mem=100]", ["rusage[mem=100]"]),
        (4, "", ["span[hosts=1]"]),
        (4, "select[mem>100] rusage[mem=100]", ["select[mem>100] rusage[mem=100] span[hosts=1]"]),
        (4, "span[ptile=2]", ["span[ptile=2]"]),
    ],
)
def test_lsf_gets_its_requirements_at_once(
    cores: int, requirements: str, expected: list[str], tmp_path: Path, programs: Make
) -> None:
    """OpenLava: "Invalid syntax; the -R option was used more than once."."""
    programs("bsub", f'printf "%s\\n" "$@" > {tmp_path}/arguments; echo "Job <17> is submitted to queue <normal>."')
    needs = BatchNeeds(1000, 3600, cores=cores, requirements=requirements)
    (result,) = make_backend("lsf", settings(tmp_path)).submit(submissions(tmp_path, 1, needs))
    assert result.batch_id == "17"
    words = (tmp_path / "arguments").read_text().splitlines()
    assert [words[position + 1] for position, word in enumerate(words) if word == "-R"] == expected


def test_slurm_is_asked_for_all_jobs_whatever_the_user_sees(
    tmp_path: Path, programs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user's defaults or a hidden partition leave out of the answer would count as vanished."""
    programs("squeue", f'echo "$*" >{tmp_path}/asked; echo "$SQUEUE_STATES$SLURM_CONF" >>{tmp_path}/asked')
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/b.conf")
    make_backend("slurm", settings(tmp_path)).query()
    arguments, environment = (tmp_path / "asked").read_text().splitlines()
    assert " -a " in arguments and environment == "/etc/slurm/b.conf"


@pytest.mark.parametrize(
    ("state", "held"), [("hqw", True), ("Eqw", True), ("hr", False), ("s", False), ("qw", False)]
)
def test_a_job_of_grid_engine_that_runs_is_not_on_hold(
    state: str, held: bool, tmp_path: Path, programs: Make
) -> None:
    """Holds are removed after a while: one that a person puts on a running job would end it."""
    programs("qstat", STATES["sge"].format(state=state, name=KEY.name))
    assert make_backend("sge", settings(tmp_path)).query()[KEY].held is held


WEATHER = {
    "slurm": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sge": "Unable to initialize environment because of error: Please set the environment variable SGE_ROOT.",
    "condor": "\nERROR: Can't find address of local schedd",
}


@pytest.mark.parametrize("system", list(WEATHER))
def test_what_is_no_fault_of_the_job_does_not_fail_it(system: str, tmp_path: Path, programs: Make) -> None:
    (tmp_path / "words").write_text(WEATHER[system])
    programs(SUBMIT[system], f"cat {tmp_path}/words >&2; exit 1")
    job = Submission(KEY, tmp_path / "script", 1, BatchNeeds(1, 1))
    (result,) = make_backend(system, settings(tmp_path)).submit([job])
    assert result.later and not result.error


FULL = {
    "slurm": "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "condor": "ERROR: Failed to create proc\nNumber of submitted jobs would exceed MAX_JOBS_PER_OWNER",
}
FULL_AT_SIX = """\
case "$*" in *--array=1-*) more="$*"; more=${{more#*--array=1-}}; more=${{more%% *}};; *) more=1;; esac
[ {system} = slurm ] || more=$(grep -c '^{prefix}')
have=$(cat {folder}/have 2>/dev/null || echo 0)
if [ $((have + more)) -gt 6 ]; then cat {folder}/words >&2; exit 1; fi
echo $((have + more)) > {folder}/have
if [ {system} = slurm ]; then echo $((100 + have)); else echo "$((100 + have)).0 - $((100 + have)).$((more - 1))"; fi
"""


@pytest.mark.parametrize("system", list(FULL))
def test_a_queue_takes_what_it_has_room_for(system: str, tmp_path: Path, programs: Make) -> None:
    """An array larger than the user's limit would never be taken as a whole, however long it waits."""
    (tmp_path / "words").write_text(FULL[system])
    programs(SUBMIT[system], FULL_AT_SIX.format(system=system, folder=tmp_path, prefix="dwf-"))
    jobs = [
        Submission(AttemptKey(JOB, number, 1), tmp_path / "script", number, BatchNeeds(1, 1))
        for number in range(1, 21)
    ]
    results = make_backend(system, settings(tmp_path)).submit(jobs)
    assert [bool(result.batch_id) for result in results] == [True] * 6 + [False] * 14
    assert all("would exceed" in result.later or "policy" in result.later for result in results[6:])
    assert not any(result.error for result in results)


@pytest.mark.parametrize("limit", ["QOSMaxWallDurationPerJobLimit", "QOSMaxMemoryPerJob", "AssocMaxCpuPerJobLimit"])
def test_a_job_over_the_limits_of_its_account_is_refused(limit: str, tmp_path: Path, programs: Make) -> None:
    """Slurm ends with the same words as for too many jobs, but this one would never be taken."""
    (tmp_path / "words").write_text(FULL["slurm"].replace("QOSMaxSubmitJobPerUserLimit", limit))
    programs("sbatch", f"cat {tmp_path}/words >&2; exit 1")
    job = Submission(KEY, tmp_path / "script", 1, BatchNeeds(1, 1))
    (result,) = make_backend("slurm", settings(tmp_path)).submit([job])
    assert limit in result.error and not result.later


@pytest.mark.parametrize(
    ("reason", "held"),
    [
        ("JobHeldUser", True), ("JobHeldAdmin", True), ("PartitionConfig", True), ("DependencyNeverSatisfied", True),
        ("launch failed requeued held", True), ("launch_failed_requeued_held", True), ("InvalidQOS", True),
        ("AccountNotAllowed", True), ("AssocMaxCpuPerJobLimit", True), ("QOSMaxWallDurationPerJobLimit", True),
        ("Resources", False), ("Priority", False), ("AssocGrpCpuLimit", False), ("QOSMaxCpuPerUserLimit", False),
        ("ReqNodeNotAvail", False), ("PartitionDown", False), ("PartitionInactive", False),
        ("QOSUsageThreshold", False), ("None", False),
    ],
)  # fmt: skip
def test_why_jobs_of_slurm_wait(reason: str, held: bool, tmp_path: Path, programs: Make) -> None:
    """What an hour of maintenance mends is no hold: holds are removed and reported as Failed."""
    programs("squeue", f"echo '20|20|N/A|PENDING|{reason}|{KEY.name}'")
    found = make_backend("slurm", settings(tmp_path)).query()[KEY]
    assert (found.held, str(found.status)) == (held, "Suspended" if held else "Submitted")
