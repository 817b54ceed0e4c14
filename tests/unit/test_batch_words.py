"""What a site's settings and a job's overrides become in the words of each batch system."""

from dataclasses import replace
from pathlib import Path

import pytest

from DmpWorkflow.backend.interface import AttemptKey, Submission
from DmpWorkflow.backend.registry import make_backend
from DmpWorkflow.backend.work_files import prepare, site_needs
from DmpWorkflow.config.loader import load
from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.batch_needs import apply_overrides

KEY = AttemptKey("6b04cc916a00b242cb9c95ef", 7, 1)
SUBMIT = {"slurm": "sbatch", "sge": "qsub", "condor": "condor_submit"}
ANSWER = {"slurm": "17", "sge": "17", "condor": "17.0 - 17.0"}
EXTRA = {"slurm": "--nice=5", "sge": "-p -5", "condor": "schedd.example.org"}
CONFIGURATION = """\
[global]
installation = client
[JobDB]
batch_sites = A
[site]
name = A
workdir = {folder}/work
HPCsystem = {system}
HPCbin = {folder}
HPCmemory = 4GB
HPCcputime = 24:00
HPCwalltime = 26:30
HPCcores = 4
HPCqueue = long
HPCrequirements = avx2
HPCproject = dampe
HPCextra = {extra}
HPCimage = /images/sl7.sif
"""
OF_THE_SITE = {
    "slurm": {"--partition=long", "--constraint=avx2", "--account=dampe", "--mem=4096M", "--time=1590",
              "--cpus-per-task=4", "--nice=5", "--no-requeue"},
    "sge": {"-q long", "-l avx2", "-P dampe", "-l h_vmem=1024M", "-l h_cpu=21600", "-l h_rt=95400", "-pe smp 4",
            "-p -5", "-r n", "-w e"},
    "condor": {"-name schedd.example.org", '+JobFlavour = "long"', "requirements = avx2", "accounting_group = dampe",
               "request_memory = 4096", "request_cpus = 4", "RemoteUserCpu + RemoteSysCpu > 86400",
               "time() - JobCurrentStartDate > 95400", "universe = container", "container_image = /images/sl7.sif"},
}  # fmt: skip
OVERRIDES = {"MEMORY": "500", "CPUTIME": "02:30", "QUEUE": "short", "REQUIREMENTS": "big", "EXTRAS": ""}
OF_THE_JOB = {
    "slurm": {"--partition=short", "--constraint=big", "--mem=500M", "--nice=5", "--comment=a b"},
    "sge": {"-q short", "-l big", "-l h_vmem=125M", "-l h_cpu=2250", "-p -5", "-ac note=x"},
    "condor": {'+JobFlavour = "short"', "requirements = big", "request_memory = 500",
               "RemoteUserCpu + RemoteSysCpu > 9000", "-name schedd.example.org", "-append nice_user=true"},
}  # fmt: skip
MORE = {"slurm": "--comment='a b'", "sge": "-ac note=x", "condor": "-append nice_user=true"}


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A site with everything set, whose batch system notes what it is told."""
    system = request.param
    program = tmp_path / SUBMIT[system]
    program.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/told; cat >>{tmp_path}/told; echo {ANSWER[system]}\n')
    program.chmod(0o755)
    (tmp_path / "site.cfg").write_text(CONFIGURATION.format(folder=tmp_path, system=system, extra=EXTRA[system]))
    return load(tmp_path / "site.cfg").settings


@pytest.mark.parametrize("site", list(SUBMIT), indirect=True)
@pytest.mark.parametrize("overridden", [False, True])
def test_settings_and_overrides_reach_the_system(site: Settings, overridden: bool, tmp_path: Path) -> None:
    system = site.site.hpc_system
    given = {f"BATCH_OVERRIDE_{name}": value for name, value in (OVERRIDES | {"EXTRAS": MORE[system]}).items()}
    needs, warnings = apply_overrides(site_needs(site), given if overridden else {})
    job = Submission(KEY, tmp_path / "script", 1, needs)
    (result,) = make_backend(system, site).submit([job])
    assert result.batch_id in ("17", "17.0") and not warnings
    told = (tmp_path / "told").read_text()
    expected = OF_THE_JOB[system] if overridden else OF_THE_SITE[system]
    assert {words for words in expected if words not in told} == set(), told


@pytest.mark.parametrize("site", ["slurm"], indirect=True)
def test_what_is_not_asked_for_is_not_said(site: Settings, tmp_path: Path) -> None:
    """So that the system's own defaults hold."""
    needs = replace(site_needs(site), memory_mb=0, cores=1, queue="", requirements="", extra="", account="")
    job = Submission(KEY, tmp_path / "script", 1, needs)
    make_backend("slurm", site).submit([job])
    words = (tmp_path / "told").read_text().splitlines()[0]
    assert not [option for option in ("--mem", "--cpus", "--part", "--constr", "--acc", "--array") if option in words]


@pytest.mark.parametrize("site", list(SUBMIT), indirect=True)
def test_the_image_is_started_by_the_script_or_by_the_system(site: Settings, tmp_path: Path) -> None:
    definition = {
        "slug": "s", "title": "t", "type": "User", "release": "", "executable": "/bin/bash", "script": "true",
        "input_files": [], "output_files": [], "variables": [], "attributes": {},
    }  # fmt: skip
    instance = {"job_id": KEY.job_id, "instance_id": 7, "attempt": 1, "token": "secret"}
    prepared = prepare(
        definition, {KEY: instance}, site, make_backend(site.site.hpc_system, site), tmp_path / "scripts"
    )
    (job,) = prepared.submissions
    called = f"apptainer exec --bind {tmp_path}/work --bind /tmp /images/sl7.sif "
    assert (called in job.script.read_text()) is (site.site.hpc_system != "condor")
    assert "secret" not in job.script.read_text()
