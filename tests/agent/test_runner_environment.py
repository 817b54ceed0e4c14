"""What a payload sees, as values."""

from dataclasses import replace
from pathlib import Path

import pytest

from DmpWorkflow.backend.environment import payload_command, payload_environment
from DmpWorkflow.backend.run_file import PayloadVariable, RunBatch, RunFile, RunSite
from DmpWorkflow.core.variables import expand
from DmpWorkflow.utils.errors import InvalidInput
from tests.agent.runner_support import run_file


@pytest.fixture
def run(tmp_path: Path) -> RunFile:
    return run_file(tmp_path, "http://x", release="6-0-0", executable="python3 -u", slug="abc")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$A/${A}x", "1/1x"), ("$AB", "$AB"), ("$", "$"), ("${A", "${A"), ("$B", "$A"), ("$(A) `A`", "$(A) `A`")],
)
def test_expansion_is_of_names_only(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "$A"}) == expanded


def test_environment_has_all_that_is_promised(run: RunFile) -> None:
    batch = RunBatch("slurm", "req", "extra", "long", "dampe")
    seen = payload_environment(replace(run, batch=batch, attributes={"priority": "3"}, seed=5), {"HOME": "/h"})
    promised = {
        "HOME": "/h", "priority": "3", "DWF_JOB_ID": run.job_id, "DWF_INSTANCE_ID": "7", "DWF_SIXDIGIT": "000007",
        "DWF_TASKNAME": "simulation", "DWF_JOBNAME": "simulation", "DWF_TYPE": "Generation", "RELEASE_TAG": "6-0-0",
        "DWF_SW_VERSION": "6-0-0", "DAMPE_SW_DIR": "", "EXEC_DIR_ROOT": run.site.exec_dir_root,
        "BATCH_SYSTEM": "slurm", "BATCH_REQUIREMENTS": "req", "BATCH_EXTRA": "extra", "BATCH_QUEUE": "long",
        "BATCH_NAME": "dampe", "DWF_RANDOM_SEED": "5",
    }  # fmt: skip
    assert promised.items() <= seen.items()
    assert (Path(seen["DAMPE_WORKFLOW_ROOT"]) / "DmpWorkflow" / "backend").is_dir()


def test_credential_is_not_in_the_environment(run: RunFile) -> None:
    assert run.token not in " ".join(payload_environment(run, {}).values())


def test_later_variables_use_earlier_ones_and_none_replaces_a_fact(run: RunFile) -> None:
    variables = (
        PayloadVariable("A", "$HOME/a"),
        PayloadVariable("B", "$A/b"),
        PayloadVariable("DWF_INSTANCE_ID", "9"),
    )
    seen = payload_environment(replace(run, variables=variables), {"HOME": "/h"})
    assert (seen["B"], seen["DWF_INSTANCE_ID"]) == ("/h/a/b", "7")


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("A", "x\0")])
def test_impossible_variable_is_refused(run: RunFile, name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a variable"):
        payload_environment(replace(run, variables=(PayloadVariable(name, value),)), {})


def test_command_without_anything_to_source_is_the_executable(run: RunFile, tmp_path: Path) -> None:
    assert payload_command(run, {}, tmp_path / "start") == ["python3", "-u", "payload"]
    assert not (tmp_path / "start").exists()


def test_release_that_leads_elsewhere_is_refused(run: RunFile, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot name a folder"):
        payload_command(replace(run, release="../../etc"), {}, tmp_path / "start")


def test_unbalanced_quotes_are_refused(run: RunFile, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No closing quotation"):
        payload_command(replace(run, executable="python '"), {}, tmp_path / "start")


def test_names_with_blanks_and_quotes_survive_sourcing(run: RunFile, tmp_path: Path) -> None:
    externals = tmp_path / "it's $(here).sh"
    externals.touch()
    site = RunSite(externals_script=str(externals))
    command = payload_command(replace(run, site=site), {}, tmp_path / "start")
    assert command == ["/bin/bash", str(tmp_path / "start"), str(externals), "", "python3", "-u", "payload"]
