"""What a hostile job, server or neighbour tries at a site: no name leads out of the work folder."""

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from DmpWorkflow.backend import agent, journal, work_files
from DmpWorkflow.backend.cycle import Limits
from DmpWorkflow.backend.environment import make_folder
from DmpWorkflow.backend.interface import AttemptKey
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.backend.staging import UnknownLocation, locate, stage
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.utils.errors import ConfigurationError, InvalidInput, Unavailable
from tests.agent.runner_support import run_file

JOB = "6b04cc916a00b242cb9c95ef"
DEFINITION: dict[str, Any] = {
    "title": "fine", "type": "User", "release": "", "slug": "abc", "executable": "/bin/bash", "script": "true",
    "input_files": [], "output_files": [], "variables": [], "attributes": {},
}  # fmt: skip
INSTANCE: dict[str, Any] = {
    "job_id": JOB, "instance_id": 7, "attempt": 1, "token": "t", "definition": "0", "lease_expires": "2026-11-25",
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "work").mkdir()
    return Settings(site=replace(SiteSettings(), workdir=str(tmp_path / "work")))


def prepared(settings: Settings, definition: Mapping[str, Any], python: str = "") -> work_files.Prepared:
    key = AttemptKey(JOB, 7, 1)
    scripts = Path(settings.site.workdir) / "scripts"
    backend = LocalBackend.from_settings(settings)
    return work_files.prepare(definition, {key: INSTANCE}, settings, backend, scripts, python)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "title",
    [
        "..",
        "../../etc",
        "/etc",
        ".outbox",
        ".agent",
        "a\0b",
        "a\nb",
        "\x1b]0;x\x07",
        "",
        "x" * 300,
        "é" * 200,
    ],
)
def test_no_title_leads_out_of_the_work_folder(title: str, settings: Settings, tmp_path: Path) -> None:
    """Refused for good, so that the instance fails with the reason: to wait for a better disk would not help."""
    before = everything(tmp_path)
    with pytest.raises(InvalidInput, match=r"cannot name a folder|choose a shorter name") as refused:
        raise next(iter(prepared(settings, DEFINITION | {"title": title}).failed.values()))
    assert str(refused.value).isprintable()
    assert everything(tmp_path) == before


def test_a_link_in_the_place_of_a_work_folder_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").touch()
    place = tmp_path / "work" / "fine" / "User" / "07"
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "precious")
    (refused,) = prepared(settings, DEFINITION).failed.values()
    assert "is a symbolic link: remove it" in str(refused)
    assert everything(tmp_path / "precious") == ["data"]


def test_a_payload_runs_where_its_work_folder_cannot_be_made(settings: Settings, tmp_path: Path) -> None:
    """A disk that is full, for one: the payload's work is worth more than its output."""
    (made,) = prepared(settings, DEFINITION, "/bin/echo").submissions
    folder = Path(settings.site.workdir, "fine", "User", "07")
    folder.parent.mkdir(parents=True)
    folder.touch()  # a file is in the way
    done = subprocess.run([made.script, "1"], capture_output=True, text=True, check=True)
    assert done.stdout == f"-m DmpWorkflow.backend.runner {made.script.with_suffix('.jsonl')} 1\n"
    folder.unlink()
    subprocess.run([made.script, "1"], check=True)
    assert (folder / "output.log").read_text() == done.stdout


class HostileServer:
    """Answers an agent with work of its own making."""

    def __init__(self, **instance: Any) -> None:
        self.work = {"definitions": {"0": DEFINITION}, "instances": [INSTANCE | instance]}

    def agent_heartbeat(self, beat: Mapping[str, Any], holds: Sequence[Any]) -> list[str]:
        return []

    def claim(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.work

    def report_many(self, reports: Sequence[Any]) -> list[dict[str, str]]:
        return [{"result": "ok"} for _ in reports]


@pytest.mark.parametrize(
    "instance",
    [
        {"job_id": "../../../tmp/x"},
        {"job_id": f"{JOB}\n# injected"},
        {"job_id": None},
        {"instance_id": "1/../../x"},
        {"instance_id": -1},
        {"instance_id": 10**30},
        {"attempt": "1"},
        {"attempt": None},
    ],
)
def test_keys_of_a_hostile_server_become_no_names_of_files(
    instance: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    backend = LocalBackend.from_settings(settings)
    server: Any = HostileServer(**instance)
    with pytest.raises(Unavailable, match="hands out what is no work") as refused:
        agent.run_cycle(settings, server, backend, Limits())
    assert str(refused.value).isprintable()
    made = [name for name in everything(tmp_path) if not name.startswith(("work/.agent", "work/.local"))]
    assert made == ["work"]


HELD = '{{"folders": {{}}, "held": [["{job}", {attempt}, [[{number}, "17"]]]], "lost": []}}'
BAD = [
    HELD.format(job="../x", attempt=1, number=1), HELD.format(job=JOB, attempt=1, number=-1),
    HELD.format(job=JOB, attempt=1, number='"../x"'), HELD.format(job=JOB, attempt=10**18, number=1),
]  # fmt: skip


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"folders": {}, "held": 5}', "\udcff", "[" * 100_000, *BAD])
@pytest.mark.parametrize("name", ["journal.json", "claim.json"])
def test_a_damaged_journal_is_told_in_one_line(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with (
        pytest.raises(ConfigurationError, match=r"cannot be read .*: move it away") as told,
        journal.opened(tmp_path),
    ):
        pytest.fail("it was read")
    assert str(told.value).isprintable()


def test_a_folder_that_a_neighbour_put_before_us_is_not_used(tmp_path: Path) -> None:
    """Everybody may write to /tmp: who owns the folder of ours could replace what is in it."""
    root, theirs = tmp_path / "tmp", tmp_path / "theirs"
    for folder in (root, theirs):
        folder.mkdir()
    run = run_file(tmp_path, "http://x")
    run = replace(run, site=replace(run.site, exec_dir_root=str(root)))
    root.chmod(0o1777)
    assert make_folder(run, "1").parent == root / "000007"
    (root / "000007" / "1").rmdir()
    (root / "000007").rmdir()
    (root / "000007").symlink_to(theirs)
    with pytest.raises(ConfigurationError, match=r"000007 is not ours: set \[site\] EXEC_DIR_ROOT"):
        make_folder(run, "1")
    assert everything(theirs) == []
    if os.geteuid() == 0:
        (root / "000007").unlink()
        (root / "000007").mkdir()
        os.chown(root / "000007", 12345, 12345)
        with pytest.raises(ConfigurationError, match="000007 is not ours"):
            make_folder(run, "1")
        deeper = replace(run, site=replace(run.site, exec_dir_root=str(root / "dampe" / "exec")))
        (root / "dampe").mkdir()
        os.chown(root / "dampe", 12345, 12345)
        with pytest.raises(ConfigurationError, match="dampe is not ours"):
            make_folder(deeper, "1")
    root.chmod(0o755)  # where only we may write, a link is our own choice
    assert make_folder(run, "2").name == "2"


def test_pipes_and_devices_are_not_staged(tmp_path: Path) -> None:
    """A pipe would hold the slot for ever, and /dev/zero would fill the disk."""
    (tmp_path / "device").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("device", "socket"):
            with pytest.raises(UnknownLocation, match="is no regular file"):
                stage(str(tmp_path / name), str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_link_at_the_target_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").write_text("new")
    (tmp_path / "target").symlink_to(tmp_path / "precious")
    stage(str(tmp_path / "out"), str(tmp_path / "target"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "target").is_symlink() and (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize(
    "text", ["root://[", "root://-o//path", "root://a\u2100b//x", "file://[", "file:///a%00b", "a\0b"]
)
def test_locations_that_are_none(text: str) -> None:
    with pytest.raises(UnknownLocation):
        locate(text)
