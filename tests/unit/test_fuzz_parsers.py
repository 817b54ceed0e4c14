"""Parsers fuzzed: whatever comes in, they return something or raise an error of ours. scripts/fuzz goes on longer."""

import json
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from DmpWorkflow.backend import journal, outbox
from DmpWorkflow.backend.batch_names import batch_name, members
from DmpWorkflow.backend.commands import Commands, Output
from DmpWorkflow.backend.interface import AttemptKey, Submission
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.backend.run_file import RunFile
from DmpWorkflow.backend.staging import locate
from DmpWorkflow.config.loader import load
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.core import variables
from DmpWorkflow.core.batch_id import normalise_batch_id, same_batch_job
from DmpWorkflow.core.batch_needs import BatchNeeds, apply_overrides
from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.core.job_xml import parse_jobs, readable_xml, serialise_jobs
from DmpWorkflow.core.literals import dictionary
from DmpWorkflow.core.names import check_title
from DmpWorkflow.core.overrides import from_mapping
from DmpWorkflow.core.work_folder import job_folder, number_as_path
from DmpWorkflow.frontend.cli import assignments
from DmpWorkflow.utils.errors import DmpWorkflowError
from DmpWorkflow.utils.units import parse_clock, parse_memory
from tests.agent.runner_support import run_file
from tests.fuzzing import CHANGES, PIECES, damaged
from tests.unit.test_job_xml import README_EXAMPLE

FUZZ = settings(
    max_examples=int(os.environ.get("DAMPE_FUZZ_EXAMPLES", "25")),
    deadline=None,
    print_blob=True,  # of what failed: it runs that again
    suppress_health_check=list(HealthCheck),
)
ours = suppress(DmpWorkflowError)


@FUZZ
@given(st.one_of(st.binary(max_size=200), st.builds(lambda c: damaged(README_EXAMPLE.decode(), c), CHANGES)))
def test_job_definitions(data: bytes | str) -> None:
    with ours:
        jobs, _ = parse_jobs(data if isinstance(data, bytes) else data.encode(errors="replace"))
        assert parse_jobs(serialise_jobs(jobs))[0] == jobs
        assert parse_jobs(readable_xml(jobs[0]).encode())[0][0] == jobs[0]
        variables.resolve([jobs[0].variables])


LITERAL = str(
    {"MetaData": [{"name": "A", "value": 5, "var_type": "string"}], "InputFiles": [{"source": "a", "target": "b"}]}
)


@FUZZ
@given(st.builds(lambda c: damaged(LITERAL, c), CHANGES) | PIECES)
@example("{'a':" + "-" * 50_000 + "1}")
def test_literals(text: str) -> None:
    with ours:
        json.loads(from_mapping(dictionary(text, "override_dict")).to_json() or "{}")


TEXTS = st.text(st.sampled_from("$AB{}x\0 "), max_size=30)


@FUZZ
@given(st.lists(st.dictionaries(st.sampled_from("ABC"), TEXTS, max_size=3), max_size=4))
def test_variables(layers: list[dict[str, str]]) -> None:
    with ours:
        made = variables.resolve([[Variable(*item) for item in layer.items()] for layer in layers])
        assert {item.name for item in made} == {name for layer in layers for name in layer}


@FUZZ
@given(
    st.one_of(PIECES, st.from_regex(r"\A\s*\d*\.?\d*\s*[kmgtKMGT]?[bB]?\Z"), st.from_regex(r"\A\d*:\d\d(:\d\d)?\Z"))
)
def test_units_and_small_words(text: str) -> None:
    with ours:
        assert 0 < parse_memory(text) < 2**64
    with ours:
        assert 0 <= parse_clock(text) < 2**32
    with ours:
        apply_overrides(BatchNeeds(1, 1), {"BATCH_OVERRIDE_MEMORY": text, "BATCH_OVERRIDE_CPUTIME": text})
    with ours:
        assignments.overrides([text, f"A={text}"])
    with ours:
        locate(text)
    same_batch_job(normalise_batch_id(text), "1")
    members(f"dwf-{text}")


@FUZZ
@given(st.one_of(PIECES, st.builds(lambda one, other: f"{one}/{other}", PIECES, PIECES)), st.integers(0, 2**63 - 1))
def test_no_title_leads_out_of_the_root(title: str, number: int) -> None:
    with ours:
        check_title(title)
        folder = Path(os.path.normpath(job_folder("/work", title, "User") / number_as_path(number)))
        assert folder.is_relative_to(f"/work/{title}/User") and str(folder).isprintable()


INI = """[global]
installation = client
[server]
url = http://localhost:5000  # a server
port = 5000
[site]
name = ${X}local
HPCmemory = 4GB
HPCcputime = 24:00
"""


@FUZZ
@given(st.one_of(st.binary(max_size=100), st.builds(lambda c: damaged(INI, c).encode(errors="replace"), CHANGES)))
def test_configuration(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.cfg"
    path.write_bytes(data)
    with ours:
        load(path)


HELD = ["6b04cc916a00b242cb9c95ef", 1, [[1, "7"], [2, "7", 0.5, "why", 1, 0.5, False, True]]]
JOURNAL = json.dumps(
    {"folders": {"6b04cc916a00b242cb9c95ef": "/w"}, "held": [HELD], "lost": [["6b04cc916a00b242cb9c95ef", 3, 1, 5]]}
)


@FUZZ
@given(CHANGES)
def test_files_of_agent_and_runner(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    run = folder / "runs.jsonl"
    RunFile.save(run, [run_file(folder, "http://x")])
    run.write_text(damaged(run.read_text(), changes), errors="replace")
    with ours:
        RunFile.load(run, 1)
    kept = folder / "fuzzed-journal"
    kept.mkdir(exist_ok=True)
    (kept / "journal.json").write_text(damaged(JOURNAL, changes), errors="replace")
    with ours, journal.opened(kept) as found:
        assert all(AttemptKey.from_name(key.name) == key for key in found.held)
    box = folder / "fuzzed-outbox" / "a"
    box.mkdir(parents=True, exist_ok=True)
    delivery = json.dumps({"server_url": "http://x", "token": "t", "ca_file": None})
    (box / "delivery.json").write_text(damaged(delivery, changes), errors="replace")
    (box / "00000001-r.json").write_text(
        damaged('{"sequence": 1, "major_status": "Done"}', changes), errors="replace"
    )
    for known in outbox.outboxes(box.parent):
        known.deliver(lambda report: outbox.Answer.LATER)


JOB = "6b04cc916a00b242cb9c95ef"
KEYS = [AttemptKey(JOB, number, 1) for number in range(1, 5)]
ARRAY, LONE, ME = batch_name(KEYS), KEYS[0].name, pwd.getpwuid(os.geteuid()).pw_name
QSTAT = f"""Job Id: 17.pbs1
    Job_Name = {LONE}
    Job_Owner = {ME}@host
    job_state = R
    resources_used.cput = 00:01:02
    resources_used.mem = 5312kb
    Exit_status = 271
Job Id: 18[2].pbs1
    Job_Name = {ARRAY}
    Job_Owner = {ME}@host
    job_state = F
    Exit_status = -29
    substate = 91
"""
AD = {"ClusterId": 12, "ProcId": 0, "DwfName": LONE, "JobStatus": 5, "HoldReason": "x", "HoldReasonCode": 34,
      "RemoteUserCpu": 1.5, "RemoteSysCpu": 2, "ResidentSetSize_RAW": 500, "ExitCode": 0, "ExitBySignal": False,
      "RemoveReason": "PeriodicRemove", "LastJobStatus": 5, "LastHoldReasonCode": 34, "DwfMemoryKb": 50}  # fmt: skip
BHIST = f"""Job <17>, Job Name <{LONE}>, User <me>, Project <default>
Tue Nov 24 15:30:42: Submitted from host <a>, to Queue <normal>;
Tue Nov 24 15:30:44: Exited with exit code 3. The CPU time used is 0.1 seconds;
--------------------------------------------------
"""
# What commands print, as recorded; names and users are ours.
PRINTED = {
    "slurm": {
        "squeue": f"12|12|N/A|RUNNING|None|{LONE}\n14|14|1-3,4%2|PENDING|Priority|{ARRAY}\n",
        "sacct": f"598|FAILED|3:0|00:01:02|0|4000M|{LONE}\n598.batch|FAILED|3:0|1-00:01:05|5312K||batch\n"
        f"99_[2-4%1]|CANCELLED by 0|0:0|00:00:00||1M|{ARRAY}\n",
        "scontrol": f"JobId=8 JobName={LONE} UserId=me({os.geteuid()}) GroupId=root(0) QOS=(null) JobState=FAILED "
        "Reason=None Dependency=(null) Requeue=0 ExitCode=0:9 RunTime=00:00:01\n",
        "sstat": "12.batch|00:01:02|5312K\n",
        "sbatch": "17;cluster\n",
    },
    "sge": {
        "qstat": f"<job_info><queue_info><job_list><JB_job_number>12</JB_job_number><JB_name>{ARRAY}</JB_name>"
        "<state>hqw</state><tasks>1-3:1,4</tasks></job_list></queue_info></job_info>",
        "qacct": f"====\njobname      {LONE}\njobnumber    20\ntaskid       undefined\nfailed       37  : qmaster\n"
        "exit_status  137\nru_wallclock 1.9s\nru_maxrss    4.336KB\ncpu          1.990s\ncategory     -l h_rt=5\n",
        "qsub": "17.1-4:1\n",
    },
    "pbs": {"qstat": QSTAT, "qsub": "17[].pbs1\n"},
    "lsf": {
        "bjobs": f"12|RUN||57.6|6272|1 second(s)|{LONE}\n13|EXIT|140|57.6|522 MBytes|1 second(s)|{ARRAY}[2]\n",
        "bhist": BHIST,
        "bsub": "Job <17> is submitted to default queue <normal>.\n",
    },
    "condor": {"condor_q": json.dumps([AD]), "condor_history": json.dumps([AD]), "condor_submit": "17.0 - 17.3\n"},
}  # fmt: skip


@dataclass(frozen=True)
class Printing(Commands):
    """Stands in for the commands of a batch system."""

    text: str = ""
    code: int = 0

    def run(self, program: str, *arguments: str, text: str = "") -> Output:
        return Output(program, self.code, self.text, self.text if self.code else "")


@pytest.mark.parametrize("system", list(PRINTED))
@FUZZ
@given(st.data(), CHANGES, st.sampled_from([0, 0, 0, 1, 35, 153]))
def test_what_batch_systems_print(
    system: str, data: st.DataObject, changes: list[tuple[float, int, str]], code: int
) -> None:
    program = data.draw(st.sampled_from(list(PRINTED[system])))
    backend = make_backend(system, Settings(site=replace(SiteSettings(), hpc_bin="/nowhere")))
    text = damaged(PRINTED[system][program], changes).encode(errors="replace").decode()
    backend.commands = Printing(text=text, code=code)  # type: ignore[attr-defined]
    jobs = []
    with ours:
        jobs = list(backend.query().values())
    with ours:
        backend.measure(jobs)
    with ours:
        backend.explain(jobs)
    for batch_id in ("", "12", "18[2].pbs1"):
        with ours:
            backend.endings(dict.fromkeys(KEYS, batch_id))
    needs = BatchNeeds(1000, 3600)
    with ours:
        backend.submit([Submission(key, Path("/f/script"), 1, needs) for key in KEYS])
    with ours:
        backend.cancel(jobs)
