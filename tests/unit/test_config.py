"""Loading, describing and installing a configuration."""

import os
import re
import stat
from pathlib import Path

import pytest

from DmpWorkflow.config import loader
from DmpWorkflow.config.install import install
from DmpWorkflow.config.loader import MASK, describe, load
from DmpWorkflow.utils.errors import ConfigurationError

SITE_A = """\
[global]
installation = client
randomSeed = true
trackeback = true
# or set seed here.

[server]
# use DEVEL server for now
url = http://url_to_flask_server

# here we have model definitions specific to the collections
[JobDB]
task_types = Generation,Digitization,Reconstruction,User,Other,Data,SimuDigi,Reco
task_major_statii = New,Running,Failed,Terminated,Done,Submitted,Suspended
task_final_statii = Terminated,Failed,Done
batch_sites = CNAF,local,UNIGE,BARI

[site]
name = SITE_A
DAMPE_SW_DIR = /lustrehome/exp_soft/dampe_local/dampe
EXEC_DIR_ROOT = /tmp/condor/
ExternalsScript = ${DAMPE_SW_DIR}/externals/setup.sh
workdir = /lustre/dampe/workflow/workdir
#workdir = /storage/gpfs_ams/dampe/users/dampe_prod/test
HPCsystem = condor # or lsf, sge / pbs
HPCmemory = 4000
HPCcputime = 01:00
# use HPCextra to specify the universe for condor
HPCname  = HPC_Site_A
HPCextra = site_condor_name

[watchdog]
ratio_mem = 0.95
ratio_cpu = 0.98
"""


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the files and variables of whoever runs the tests out of them."""
    for name in ("DAMPE_CONFIG", "DAMPE_SW_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loader, "SYSTEM_FILE", tmp_path / "etc" / "settings.cfg")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_site_a_of_the_readme(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cfg", SITE_A)
    loaded = load(path)
    settings = loaded.settings
    assert settings.global_.installation == "client"
    assert settings.global_.random_seed and settings.global_.traceback
    assert settings.global_.seed is None
    assert settings.server.url == "http://url_to_flask_server"
    assert settings.jobdb.batch_sites == ("CNAF", "local", "UNIGE", "BARI")
    assert settings.jobdb.task_final_statii == ("Terminated", "Failed", "Done")
    assert settings.site.externals_script == "/lustrehome/exp_soft/dampe_local/dampe/externals/setup.sh"
    assert settings.site.hpc_system == "condor"
    assert settings.site.hpc_memory_mb == 4000.0
    assert settings.site.hpc_cputime_seconds == 3600
    assert settings.site.workdir == "/lustre/dampe/workflow/workdir"
    assert (settings.watchdog.ratio_mem, settings.watchdog.ratio_cpu) == (0.95, 0.98)
    assert len(loaded.warnings) == 1 and "'SITE_A' is not in batch_sites" in loaded.warnings[0]


def test_origins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cfg", SITE_A)
    origins = load(path).settings.origins
    assert origins["global.traceback"] == f"{path}:4"
    assert (
        origins["site.workdir"]
        == f"{path}:{SITE_A.splitlines().index('workdir = /lustre/dampe/workflow/workdir') + 1}"
    )
    assert origins["watchdog.interval"] == "default"


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.cfg",
        "[global]\ninstallation = laptop\nseed = x\n[server]\nport = 0\n"
        "[site]\nHPCsystem = cray\nHPCmemory = nan\nHPCcputime = 01:75\nslots = 0\n[watchdog]\nratio_mem = 1.5\n",
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == (f"{path}:2: [global] installation: 'laptop' is not allowed; allowed: one of client, server")
    keys = ("installation", "seed", "port", "HPCsystem", "HPCmemory", "HPCcputime", "slots", "ratio_mem")
    assert len(lines) == len(keys)
    assert all(f"] {key}: " in line and "allowed: " in line for key, line in zip(keys, lines, strict=True))


@pytest.mark.parametrize(("text", "seconds"), [("01:00", 3600), ("100:00:05", 360005), ("00:00:30", 30)])
def test_durations(tmp_path: Path, text: str, seconds: int) -> None:
    path = write(tmp_path / "a.cfg", f"[site]\nHPCcputime = {text}\n")
    assert load(path).settings.site.hpc_cputime_seconds == seconds


@pytest.mark.parametrize("text", ["1", "00:00", "1:2:3:4", "-1:00", "01:", "01:00:60"])
def test_not_durations(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="HH:MM"):
        load(write(tmp_path / "a.cfg", f"[site]\nHPCcputime = {text}\n"))


def test_unknown_names_are_warnings_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cfg", "[site]\nHPCmemroy = 1\nhpcqueue = q\n[watchdgo]\nratio_mem = 9\n")
    warnings = load(path).warnings
    assert warnings == (
        f"{path}:2: [site] HPCmemroy: unknown key; did you mean HPCmemory?",
        f"{path}:3: [site] hpcqueue: unknown key; did you mean HPCqueue?",
        f"{path}: [watchdgo]: unknown section; did you mean watchdog?",
    )


def test_both_spellings_of_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="same as traceback"):
        load(write(tmp_path / "a.cfg", "[global]\ntraceback = on\ntrackeback = off\n"))


def test_expansion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_ENV", "/env")
    monkeypatch.setenv("DAMPE_SW_DIR", "/not/this")
    text = "[site]\nDAMPE_SW_DIR = ${FROM_ENV}/sw\nExternalsScript = ${DAMPE_SW_DIR}/${NOWHERE}\n"
    text += "workdir = ${workdir}/x\n"
    site = load(write(tmp_path / "a.cfg", text)).settings.site
    assert site.externals_script == "/env/sw/${NOWHERE}"
    assert site.workdir == "${workdir}/x"


def test_secrets_are_masked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cfg", "[server]\ntoken = s3cret\n[database]\npassword = s3cret\nuri = x://s3cret\n")
    settings = load(path).settings
    rows = describe(settings)
    assert ("server", "token", MASK, f"{path}:2") in rows
    assert ("database", "host", "localhost", "default") in rows
    assert "s3cret" not in repr(rows) and "s3cret" not in repr(settings)
    assert settings.server.token == "s3cret"


@pytest.mark.parametrize(
    "text", ["token = s3cret\n", "[server]\ns3cret\n", "[server]\ntoken = s3cret\ntoken = s3cret\n"]
)
def test_syntax_problems_name_the_place_not_the_content(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.cfg", text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert f"{path}:" in str(caught.value) and "s3cret" not in str(caught.value)


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(path: Path | None = None) -> str:
        return load(path).settings.site.name

    assert name() == "local"
    write(tmp_path / "etc" / "settings.cfg", "[site]\nname = system\n")
    assert name() == "system"
    write(tmp_path / "home" / ".config" / "dampe" / "settings.cfg", "[site]\nname = user\n")
    assert name() == "user"
    monkeypatch.setenv("DAMPE_CONFIG", str(write(tmp_path / "env.cfg", "[site]\nname = env\n")))
    assert name() == "env"
    assert name(write(tmp_path / "given.cfg", "[site]\nname = given\n")) == "given"
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        name(tmp_path / "missing.cfg")


def test_install_is_private_and_complete(tmp_path: Path) -> None:
    source = write(tmp_path / "a.cfg", SITE_A)
    source.chmod(0o644)
    target = write(tmp_path / "there" / "settings.cfg", "old")
    target.chmod(0o644)
    install(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["settings.cfg"]


def test_an_invalid_source_changes_nothing(tmp_path: Path) -> None:
    target = write(tmp_path / "there" / "settings.cfg", "old")
    with pytest.raises(ConfigurationError):
        install(write(tmp_path / "bad.cfg", "[server]\nport = x\n"), target)
    assert target.read_text() == "old"


def test_a_failed_replace_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = write(tmp_path / "there" / "settings.cfg", "old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        install(write(tmp_path / "a.cfg", SITE_A), target)
    assert [path.read_text() for path in target.parent.iterdir()] == ["old"]


def test_networks_that_need_no_credential(tmp_path: Path) -> None:
    text = "[server]\nauth_networks = 10.1.0.0/16 optional, 10.1.2.0/24 required,2001:db8::/32 off,\n"
    server = load(write(tmp_path / "n.cfg", text)).settings.server
    expected = {"10.1.3.4": "optional", "10.1.2.3": "required", "2001:db8::1": "off", "10.2.0.1": "required"}
    expected |= {"::ffff:10.1.3.4": "optional", "": "required", "unix:": "required", "fe80::1%eth0": "required"}
    assert {address: server.auth_of(address) for address in expected} == expected
    assert server.openness == "off"
    assert server.open_to == (
        "clients from 10.1.0.0/16 may do what old clients need; clients from 2001:db8::/32 may do everything"
    )
    shown = {key: value for _, key, value, _ in describe(load(tmp_path / "n.cfg").settings)}
    assert shown["auth_networks"] == "10.1.0.0/16 optional,10.1.2.0/24 required,2001:db8::/32 off"


@pytest.mark.parametrize(
    ("auth", "openness", "open_to"),
    [
        ("required", "required", ""),
        ("optional", "optional", "everybody may do what old clients need"),
        ("off", "off", "everybody may do everything"),
    ],
)
def test_how_open_a_server_is(tmp_path: Path, auth: str, openness: str, open_to: str) -> None:
    server = load(write(tmp_path / "o.cfg", f"[server]\nauth = {auth}\n")).settings.server
    assert (server.openness, server.open_to) == (openness, open_to)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("10.1.0.0/16", "a network and one of required, optional, off"),
        ("10.1.0.0/16 maybe", "a network and one of required, optional, off"),
        ("10.1.2.3/16 off", "has host bits set"),
        ("10.1.0.0/33 off", "networks as in 10.1.0.0/16"),
        ("cern.ch off", "networks as in 10.1.0.0/16"),
        ("10.0.0.0/8 off, 10.0.0.0/8 required", "each network once, and not 10.0.0.0/8 twice"),
    ],
)
def test_a_network_that_is_none_is_refused(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"auth_networks: .*{re.escape(words)}"):
        load(write(tmp_path / "n.cfg", f"[server]\nauth_networks = {value}\n"))


@pytest.mark.parametrize(
    ("url", "clean", "token"),
    [
        ("http://site:s3cret@server:5000/x", "http://server:5000/x", "s3cret"),
        ("https://site:a%40b@server", "https://server", "a@b"),
        ("http://site:a@b@server", "http://server", "a@b"),
        ("http://site@server", "http://server", ""),
        ("http://server/a@b:c@d", "http://server/a@b:c@d", ""),
        ("http://[::1", "http://[::1", ""),
    ],
)
def test_a_credential_in_the_url_becomes_the_token(tmp_path: Path, url: str, clean: str, token: str) -> None:
    settings = load(write(tmp_path / "u.cfg", f"[server]\nurl = {url}\n")).settings
    assert (settings.server.url, settings.server.token) == (clean, token)
    assert "s3cret" not in str(describe(settings)) + repr(settings)
    other = load(write(tmp_path / "u.cfg", f"[server]\nurl = {url}\ntoken = own\n")).settings
    assert other.server.token == "own"
