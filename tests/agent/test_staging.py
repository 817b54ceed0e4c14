"""Staging: local files, and root:// against a real xrootd server where one is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from DmpWorkflow.backend.staging import (
    Damaged,
    MissingSource,
    MissingTool,
    StagingError,
    TransferFailed,
    UnknownLocation,
    stage,
)
from tests.needs import need


def never(seconds: float) -> None:
    pytest.fail(f"waited {seconds} s for another try")


class Tool:
    """Stands in for xrdcp and xrdfs: answers in turn, and remembers the commands."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.commands.append(list(command))
        code, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return subprocess.CompletedProcess(command, code, text, text)


def test_copy_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(10_000_000))
    source.chmod(0o750)
    target = tmp_path / "new" / "folder" / "target"
    assert stage(str(source), str(target)) == str(target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode == source.stat().st_mode
    assert list(target.parent.iterdir()) == [target]


def test_target_is_replaced_and_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("old")
    assert stage(str(tmp_path / "a"), str(tmp_path / "there")) == str(tmp_path / "there" / "a")
    assert (tmp_path / "there" / "a").read_text() == "new"
    assert stage(f"file://{tmp_path}/a", f"{tmp_path}/other/") == str(tmp_path / "other" / "a")


def test_file_staged_onto_itself_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("data")
    stage(str(tmp_path / "a"), str(tmp_path / "a"))
    assert (tmp_path / "a").read_text() == "data"


def test_missing_source_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(MissingSource, match="none"):
        stage(str(tmp_path / "none"), str(tmp_path / "target"), sleep=never)
    assert list(tmp_path.iterdir()) == []


def test_failed_copy_leaves_the_old_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    pauses: list[float] = []
    with pytest.raises(TransferFailed, match="Input/output error"):
        stage(str(tmp_path / "a"), str(tmp_path / "b"), pauses=(1, 2, 3, 4), sleep=pauses.append)
    assert pauses == [1, 2, 3, 4]
    assert (tmp_path / "b").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_damaged_copy_is_noticed_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("data")
    fsync, damages = os.fsync, [b"X", b""]

    def damaging(descriptor: int) -> None:
        if damages and (damage := damages.pop(0)):
            os.pwrite(descriptor, damage, 0)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", damaging)
    pauses: list[float] = []
    stage(str(tmp_path / "a"), str(tmp_path / "b"), sleep=pauses.append)
    assert (tmp_path / "b").read_text() == "data"
    assert len(pauses) == 1


def test_truncated_copy_never_becomes_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("data")
    (tmp_path / "b").write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 2))
    with pytest.raises(Damaged, match="differs"):
        stage(str(tmp_path / "a"), str(tmp_path / "b"), pauses=())
    assert (tmp_path / "b").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("source", ["http://x/a", "", "root://", "/"])
def test_what_cannot_be_staged_is_said_at_once(tmp_path: Path, source: str) -> None:
    with pytest.raises(UnknownLocation):
        stage(source, str(tmp_path / "target"), sleep=never)


def test_target_below_a_file_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("data")
    with pytest.raises(StagingError, match="cannot copy"):
        stage(str(tmp_path / "a"), str(tmp_path / "a" / "b"), sleep=never)


def test_missing_tool_is_one_plain_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match=r"^xrdfs is not installed on this worker node, and root:// needs it$"):
        stage("root://server//a", str(tmp_path / "a"), sleep=never)


def test_xrootd_failure_is_tried_four_times_more(tmp_path: Path) -> None:
    tool, pauses = Tool((51, "[FATAL] Connection error")), list[float]()
    with pytest.raises(TransferFailed, match="Connection error"):
        stage("root://server//a", str(tmp_path / "a"), run=tool, sleep=pauses.append)
    assert tool.commands == [["xrdfs", "server", "stat", "/a"]] * 5
    assert len(pauses) == 4
    assert pauses == sorted(pauses)


def test_missing_xrootd_source_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(MissingSource):
        stage("root://server//a", str(tmp_path / "a"), run=Tool((54, "[3011] No such file")), sleep=never)


def test_xrootd_upload_that_lost_bytes_is_damaged_and_removed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("data")
    tool = Tool((0, ""), (0, "Size: 3\n"), (0, ""))
    with pytest.raises(Damaged, match="3 bytes instead of 4"):
        stage(str(tmp_path / "a"), "root://server//b", run=tool, pauses=())
    assert [command[:3] for command in tool.commands[-2:]] == [["xrdfs", "server", "stat"], ["xrdfs", "server", "rm"]]


@pytest.fixture(scope="module")
def xrootd() -> Iterator[tuple[str, Path]]:
    """A real xrootd server: its address and the folder that it serves."""
    need("xrootd", "xrdcp", package="xrootd-server xrootd-client")
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = _configure(Path(name), port)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
            try:
                _wait_until_ready(server)
                yield f"127.0.0.1:{port}", Path(name, "served")
            finally:
                server.kill()


def _configure(folder: Path, port: int) -> list[str]:
    (folder / "served").mkdir()
    (folder / "xrootd.cfg").write_text(
        f"all.adminpath {folder}/admin\nall.pidpath {folder}/admin\noss.localroot {folder}/served\n"
        f"all.export /data\nxrd.port {port}\nxrootd.chksum adler32\n"
    )
    command = ["xrootd", "-c", str(folder / "xrootd.cfg"), "-n", "test"]
    if os.getuid():
        return command
    for path in (folder, folder / "served"):
        shutil.chown(path, "nobody")
    return [*command, "-R", "nobody"]  # it refuses to run as root


def _wait_until_ready(server: "subprocess.Popen[str]") -> None:
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "initialization completed" in line:
            threading.Thread(target=server.stderr.read, daemon=True).start()  # so that its pipe never fills
            return
    pytest.fail("xrootd does not start: " + "".join(said[-20:]))


def test_round_trip_through_a_real_xrootd(tmp_path: Path, xrootd: tuple[str, Path]) -> None:
    address, served = xrootd
    (tmp_path / "a").write_bytes(os.urandom(1_000_000))
    for _ in range(2):  # the second time there is a file to replace
        stage(str(tmp_path / "a"), f"root://{address}//data/deep/a", pauses=())
    stage(f"root://{address}//data/deep/a", f"{tmp_path}/back/", pauses=())
    assert (tmp_path / "back" / "a").read_bytes() == (tmp_path / "a").read_bytes()
    assert [path.name for path in (served / "data" / "deep").iterdir()] == ["a"]


def test_missing_file_of_a_real_xrootd(tmp_path: Path, xrootd: tuple[str, Path]) -> None:
    with pytest.raises(MissingSource):
        stage(f"root://{xrootd[0]}//data/none", str(tmp_path / "none"), sleep=never)
    assert list(tmp_path.iterdir()) == []
