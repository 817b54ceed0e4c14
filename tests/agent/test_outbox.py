"""Reports that wait on disk, and how they reach a server (a stand-in for the API, see runner_support)."""

import fcntl
import logging
import stat
import threading
from pathlib import Path

import pytest

from DmpWorkflow.backend.outbox import SAMPLE_LIMIT, SETTLED, Answer, Delivered, Delivery, Outbox, outboxes
from DmpWorkflow.backend.reporter import AttemptRefused, Courier, Reporter, Sender, ServerNotReached
from DmpWorkflow.backend.watchdog import Usage
from DmpWorkflow.core.lifecycle import MajorStatus
from tests.agent.runner_support import BUSY, OK, STALE, Reply, Report, kept, run_file, stand_in

DELIVERY = Delivery("http://server", "secret", None)


def an_outbox(root: Path) -> Outbox:
    return Outbox.of_attempt(root, "job", 7, 1, DELIVERY)


def a_report(number: int, status: str = "Running", minor: str | None = "Step", runner: str = "r") -> Report:
    return {"major_status": status, "minor_status": minor, "sequence": number, "runner": runner}


class Recorder:
    """A ``send`` that answers in turn, the last answer for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.numbers: list[int] = []

    def __call__(self, report: object) -> Answer:
        assert isinstance(report, dict)
        self.numbers.append(report["sequence"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_delivers_in_order_of_the_numbers(tmp_path: Path) -> None:
    box, send = an_outbox(tmp_path), Recorder(Answer.ACCEPTED)
    for number in (10, 9, 100):
        box.keep(a_report(number))
    assert box.deliver(send).sent == 3
    assert send.numbers == [9, 10, 100]
    assert box.kept() == []


@pytest.mark.parametrize("answer", sorted(SETTLED, key=str))
def test_settled_reports_go_whatever_was_answered(tmp_path: Path, answer: Answer) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    done = box.deliver(Recorder(answer))
    assert (done.sent, done.left, done.refused) == (1, 0, answer is Answer.REFUSED)


@pytest.mark.parametrize("answer", [Answer.LATER, Answer.DENIED])
def test_first_report_that_must_wait_holds_up_the_others(tmp_path: Path, answer: Answer) -> None:
    box, send = an_outbox(tmp_path), Recorder(Answer.ACCEPTED, answer)
    for number in (2, 3, 4):
        box.keep(a_report(number))
    done = box.deliver(send)
    assert (done.sent, done.left) == (1, 2)
    assert send.numbers == [2, 3]
    assert [report["sequence"] for report in map(_content, box.kept())] == [3, 4]


def _content(path: Path) -> Report:
    import json

    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def test_refusal_counts_only_if_nothing_later_was_accepted(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    box.keep(a_report(3, "Done"))
    assert not box.deliver(Recorder(Answer.REFUSED, Answer.ACCEPTED)).refused


def test_folder_goes_with_the_final_report_only(tmp_path: Path) -> None:
    box, send = an_outbox(tmp_path), Recorder(Answer.ACCEPTED)
    box.keep(a_report(2))
    box.deliver(send)
    assert box.folder.is_dir()
    box.keep(a_report(3, "Done"))
    box.deliver(send)
    assert list(tmp_path.iterdir()) == []
    assert box.deliver(send).sent == 0


def test_two_never_deliver_a_folder_at_once(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    inner = Recorder(Answer.ACCEPTED)

    def send(report: object) -> Answer:
        done = Outbox(box.folder, DELIVERY).deliver(inner)
        assert (done.sent, done.left) == (0, 1)
        return Answer.ACCEPTED

    assert box.deliver(send).sent == 1
    assert inner.numbers == []


def test_lock_of_a_removed_folder_counts_for_nothing(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    with (box.folder / ".lock").open("wb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        (box.folder / ".lock").unlink()
        assert box.deliver(Recorder(Answer.ACCEPTED)).sent == 1


def test_agent_finds_what_a_runner_left_and_how_to_deliver_it(tmp_path: Path) -> None:
    an_outbox(tmp_path).keep(a_report(2, "Done"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "delivery.json").write_text("{")
    found = list(outboxes(tmp_path))
    assert [box.folder.name for box in found] == ["job-7-1"]
    assert found[0].delivery == DELIVERY
    assert found[0].deliver(Recorder(Answer.ACCEPTED)).sent == 1


def test_what_holds_a_token_is_private(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    assert stat.S_IMODE(box.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in box.folder.iterdir()} == {0o600}
    assert "secret" not in repr(DELIVERY)


def test_second_runner_overwrites_nothing_of_the_first(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2, runner="first"))
    box.keep(a_report(2, runner="second"))
    assert len(box.kept()) == 2


def test_samples_thin_out_and_statuses_stay(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(1))
    for number in range(2, 3 * SAMPLE_LIMIT):
        box.keep(a_report(number, minor=None))
    box.keep(a_report(3 * SAMPLE_LIMIT, "Done"))
    numbers = [_content(path)["sequence"] for path in box.kept()]
    assert len(numbers) <= SAMPLE_LIMIT + 2
    assert (numbers[0], numbers[-1]) == (1, 3 * SAMPLE_LIMIT)


def test_unreadable_report_is_put_aside_and_blocks_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box, send = an_outbox(tmp_path), Recorder(Answer.ACCEPTED)
    (box.folder / "00000001-r.json").write_text("{")
    box.keep(a_report(2))
    with caplog.at_level(logging.ERROR):
        assert box.deliver(send).sent == 1
    assert "unreadable" in caplog.text
    assert len(list(box.folder.glob("*.unreadable"))) == 1


def test_discard_keeps_what_waits(tmp_path: Path) -> None:
    box = an_outbox(tmp_path)
    box.keep(a_report(2))
    assert not box.discard()
    box.deliver(Recorder(Answer.ACCEPTED))
    assert box.discard()
    box.keep(a_report(3))
    assert box.deliver(Recorder(Answer.ACCEPTED)).sent == 1


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (OK, Answer.ACCEPTED),
        (STALE, Answer.REFUSED),
        ((404, {"result": "nok"}), Answer.REJECTED),
        ((422, {"result": "nok"}), Answer.REJECTED),
        ((401, {"result": "nok"}), Answer.DENIED),
        ((403, ""), Answer.DENIED),
        (BUSY, Answer.LATER),
        ((429, {"result": "nok"}), Answer.LATER),
        ((500, "a stack trace"), Answer.LATER),
        ((404, "<html>a proxy's page</html>"), Answer.LATER),
        ((200, "<html>a proxy's page</html>"), Answer.LATER),
        ((307, ""), Answer.LATER),
    ],
)
def test_answers_of_a_server(reply: Reply, answer: Answer) -> None:
    with stand_in(answer=lambda report: reply) as server:
        send = Sender(Delivery(server.url, "token"))
        assert send(a_report(1)) is answer


def test_nobody_at_the_address_is_an_answer_for_later() -> None:
    with stand_in() as server:
        pass
    send = Sender(Delivery(server.url, "token"))
    assert send(a_report(1)) is Answer.LATER


def test_credential_of_a_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with stand_in() as server:
        send = Sender(Delivery(server.url, "token"))
        send(a_report(1))
    assert server.tokens == {"Bearer token"}


def test_files_are_registered_once_the_server_answers_and_before_the_end(tmp_path: Path) -> None:
    with stand_in() as server:
        port = server.port
    run = run_file(tmp_path, server.url)
    send = Sender(Delivery(server.url, "token"))
    reporter = Reporter(run, send)
    reporter.keep_files(["a.root", "b.root"], "mc")
    reporter.keep(MajorStatus.DONE, "ApplicationComplete")
    assert reporter.deliver().left == 2
    with stand_in(port) as server:
        assert [delivered.deliver(send).sent for delivered in outboxes(Path(run.outbox))] == [2]
    form = {"filename": ["a.root,b.root"], "site": ["bari"], "action": ["register"], "filetype": ["mc"]}
    assert server.forms == [form]
    assert server.statuses() == [("Done", "ApplicationComplete")]


def test_a_refused_registration_stops_no_payload(tmp_path: Path) -> None:
    with stand_in() as server:
        send = Sender(Delivery(server.url, "token"))
        server.answer_forms = STALE
        reporter = Reporter(run_file(tmp_path, server.url), send)
        reporter.keep_files(["a.root"], "")
        assert not reporter.deliver().refused
    assert not kept(tmp_path)


def test_announcing_repeats_the_same_report(tmp_path: Path) -> None:
    seen: list[object] = []

    def send(report: object) -> Answer:
        seen.append(report)
        return Answer.LATER if len(seen) < 3 else Answer.ACCEPTED

    Reporter(run_file(tmp_path, "http://x"), send).announce("PreparingJob", hostname="node")
    assert len(seen) == 3
    assert seen[0] == seen[2]


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.REJECTED, Answer.DENIED])
def test_announcing_ends_at_a_refusal(tmp_path: Path, answer: Answer) -> None:
    with pytest.raises(AttemptRefused):
        Reporter(run_file(tmp_path, "http://x"), Recorder(answer)).announce("PreparingJob")


def test_announcing_ends_with_the_grace_time(tmp_path: Path) -> None:
    run = run_file(tmp_path, "http://x", grace_seconds=0.0)
    with pytest.raises(ServerNotReached):
        Reporter(run, Recorder(Answer.LATER)).announce("PreparingJob")
    assert kept(tmp_path) == []


def test_reports_without_a_disk_are_remembered_and_sent_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    send = Recorder(Answer.LATER, Answer.ACCEPTED)
    reporter = Reporter(run_file(tmp_path, "http://x"), send)
    folder = next((tmp_path / "outbox").iterdir())
    (folder / "delivery.json").unlink()
    folder.rmdir()
    folder.write_text("no folder")
    reporter.keep(MajorStatus.RUNNING, "PreparingOutputData")
    reporter.keep(MajorStatus.DONE, "ApplicationComplete")
    assert reporter.deliver() == Delivered(left=2)
    assert reporter.deliver() == Delivered(sent=2)
    assert send.numbers == [1, 1, 2]
    assert "cannot keep" in caplog.text


def test_remembered_reports_go_to_the_disk_once_it_takes_them(tmp_path: Path) -> None:
    send = Recorder(Answer.LATER)
    reporter = Reporter(run_file(tmp_path, "http://x"), send)
    folder = next((tmp_path / "outbox").iterdir())
    delivery = (folder / "delivery.json").read_bytes()
    (folder / "delivery.json").unlink()
    folder.rmdir()
    folder.write_text("no folder")
    reporter.keep(MajorStatus.RUNNING, "PreparingOutputData")
    folder.unlink()
    folder.mkdir()
    (folder / "delivery.json").write_bytes(delivery)
    reporter.keep(MajorStatus.DONE, "ApplicationComplete")
    assert [report["sequence"] for report in kept(tmp_path)] == [1, 2]


def test_courier_tells_of_a_refusal_once(tmp_path: Path) -> None:
    refused = threading.Event()
    reporter = Reporter(run_file(tmp_path, "http://x"), Recorder(Answer.REFUSED))
    with Courier(reporter, 600.0, Usage, refused.set) as courier:
        reporter.keep(MajorStatus.RUNNING, "ExecutingApplication")
        courier.poke()
        assert refused.wait(60)


def test_an_outbox_that_cannot_be_made_hinders_no_report(tmp_path: Path) -> None:
    run = run_file(tmp_path, "http://x")
    Path(run.outbox).write_text("in the way")
    reporter = Reporter(run, Recorder(Answer.LATER))
    reporter.keep(MajorStatus.FAILED, "ApplicationExitCode3")
    Path(run.outbox).unlink()
    assert reporter.deliver().left == 1
    assert [report["minor_status"] for report in kept(tmp_path)] == ["ApplicationExitCode3"]
