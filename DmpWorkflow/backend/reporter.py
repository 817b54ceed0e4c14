"""Tells the server how an attempt fares: at once if it listens, from the outbox later if it does not."""

import functools
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from DmpWorkflow.backend.outbox import SAMPLE_LIMIT, SETTLED, Answer, Delivered, Delivery, Outbox, Report
from DmpWorkflow.backend.run_file import RunFile
from DmpWorkflow.backend.watchdog import Usage
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Conflict, Unavailable
from DmpWorkflow.utils.patience import growing_pauses

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

ANSWER_SECONDS = 30.0  # to connect, and for each part of the answer
LONGEST_REPLY = 1 << 20
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
REGISTRATION = ("filename", "site", "action", "filetype")
REJECTIONS = frozenset({400, 404, 413, 422})  # the same report would get the same answer for ever
DENIALS = frozenset({401, 403})

logger = logging.getLogger(__name__)


class AttemptRefused(Conflict):
    """The server refuses this attempt: another one is current, or it was ended."""


class ServerNotReached(Unavailable):
    """The server accepted no report within the grace time."""


@dataclass(frozen=True)
class Reply:
    """What a server answered: its HTTP status, and its body (the first ``LONGEST_REPLY`` bytes)."""

    status: int
    body: bytes


class Sender:
    """Sends reports with a credential; without requests, which would cost each payload 0.1 s."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._url = delivery.server_url.rstrip("/")

    @functools.cached_property
    def _opener(self) -> "OpenerDirector":
        """What sends: it trusts the configured authority, and follows no redirect, which would take the token."""
        from urllib.request import BaseHandler, HTTPRedirectHandler, HTTPSHandler, build_opener

        class StayHere(HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                return None

        handlers: list[BaseHandler] = [StayHere()]
        if self._url.lower().startswith("https:"):
            import ssl

            import certifi

            trust = self._delivery.ca_file or certifi.where()
            handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=trust)))
        return build_opener(*handlers)

    def __call__(self, report: Report) -> Answer:
        """Send one report and return the server's answer; LATER if there is none."""
        from http.client import HTTPException

        try:
            if "filename" in report:
                return self._register(report)
            reply = self._post("/jobstatus/", "application/json", json.dumps({"args": dict(report)}))
        except (OSError, HTTPException) as error:  # also an unreadable ca_file
            logger.warning("the server does not answer: %s", error)
            return Answer.LATER
        return _noted(_answer(reply), reply)

    def _register(self, report: Report) -> Answer:
        """Enter files into the catalogue; a refusal stops no payload, since the files are where they should be."""
        form = urlencode({name: report[name] for name in REGISTRATION if report.get(name)})
        reply = self._post("/datacat/", "application/x-www-form-urlencoded", form)
        answer = _answer(reply)
        return _noted(Answer.REJECTED if answer is Answer.REFUSED else answer, reply)

    def _post(self, route: str, kind: str, text: str) -> Reply:
        from urllib.error import HTTPError
        from urllib.request import Request

        headers = {"Authorization": f"Bearer {self._delivery.token}", "Content-Type": kind}
        request = Request(self._url + route, text.encode(), headers)  # noqa: S310 - the address is the site's own
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answered:
                return Reply(answered.status, answered.read(LONGEST_REPLY))
        except HTTPError as refused:
            with refused:
                return Reply(refused.code, refused.read(LONGEST_REPLY))


def _noted(answer: Answer, reply: Reply) -> Answer:
    if answer is not Answer.ACCEPTED:
        said = reply.body[:500].decode(errors="replace")
        logger.warning("%s by the server: %s %s", answer.value, reply.status, said)
    return answer


def _answer(reply: Reply) -> Answer:
    if reply.status == 409:
        return Answer.REFUSED
    if reply.status in DENIALS:
        return Answer.DENIED
    result = _result(reply)
    if reply.status == 200 and result.get("result") == "ok":
        return Answer.ACCEPTED
    if reply.status in REJECTIONS and result:
        return Answer.REJECTED
    return Answer.LATER


def _result(reply: Reply) -> dict[str, Any]:
    """Return the decoded reply; empty for what is not ours, like the page of a proxy: that settles no report."""
    try:
        content = json.loads(reply.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def delivery_of(run: RunFile) -> Delivery:
    """Return how to reach the server in the name of ``run``."""
    return Delivery(run.server_url, run.token, str(Path(run.ca_file).absolute()) if run.ca_file else None)


class Reporter:
    """The reports of one runner, in their order. May be used by more than one thread."""

    def __init__(self, run: RunFile, send: Callable[[Report], Answer]) -> None:
        root = Path(run.outbox).absolute()  # the runner changes its folder
        self._run = run
        self._send = send
        self._box = Outbox.of_attempt(root, run.job_id, run.instance_id, run.attempt, delivery_of(run))
        self._runner = uuid.uuid4().hex
        self._sequence = 0
        self._unkept: list[Report] = []  # what found no room on the disk
        self._numbering, self._keeping, self._delivering = threading.Lock(), threading.Lock(), threading.Lock()

    def announce(self, minor_status: str, **values: object) -> None:
        """Send the first report, which makes this runner the attempt's only one; nothing may run before it returns.

        Raises AttemptRefused, or ServerNotReached when the grace time is over.
        """
        report = self._report(MajorStatus.RUNNING, minor_status, values)
        deadline = time.monotonic() + self._run.grace_seconds
        pauses = growing_pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while (answer := self._send(report)) is Answer.LATER:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServerNotReached(f"the server accepted no report within {self._run.grace_seconds:g} s")
            time.sleep(min(left, next(pauses)))
        if answer is not Answer.ACCEPTED:
            raise AttemptRefused(f"the first report was {answer.value}: nothing is run")

    def keep(self, status: MajorStatus, minor_status: str | None, **values: object) -> None:
        """Write a report down, to be delivered in its turn; while the disk takes none, it is remembered instead."""
        report = self._report(status, minor_status, values)
        with self._keeping:
            if minor_status is not None or len(self._unkept) < SAMPLE_LIMIT:
                self._unkept.append(report)
        self._write_down()

    def keep_files(self, names: list[str], file_type: str) -> None:
        """Write down that these files are to be entered into the catalogue, as ``keep`` does."""
        files = {
            "filename": ",".join(names),
            "site": self._run.site.name,
            "action": "register",
            "filetype": file_type,
        }
        with self._keeping:
            self._unkept.append({"sequence": self._number(), "runner": self._runner} | files)
        self._write_down()

    def _write_down(self) -> None:
        with self._keeping:
            try:
                while self._unkept:
                    self._box.keep(self._unkept[0])
                    del self._unkept[0]
            except OSError as error:
                logger.error("cannot keep a report: %s", error)

    def deliver(self) -> Delivered:
        """Send what is kept or remembered, as far as the server takes it."""
        with self._delivering:
            self._write_down()
            try:
                done = self._box.deliver(self._send)
            except OSError as error:
                logger.error("cannot deliver kept reports: %s", error)
                done = Delivered(left=len(self._box.kept()))
            return done if done.left else self._deliver_unkept(done)

    def _deliver_unkept(self, done: Delivered) -> Delivered:
        """Send what the disk did not take, after all that it did."""
        while unkept := self._unkept[:]:
            if (answer := self._send(unkept[0])) not in SETTLED:
                return Delivered(done.sent, len(unkept), done.refused)
            with self._keeping:
                if self._unkept[:1] == unkept[:1]:  # else another thread has written it down: it is sent twice
                    del self._unkept[0]
            done = Delivered(done.sent + 1, 0, answer is Answer.REFUSED)
        return done

    def report(self, status: MajorStatus, minor_status: str, **values: object) -> None:
        """Keep a report and try to deliver it; raises AttemptRefused if the server wants the attempt to stop."""
        self.keep(status, minor_status, **values)
        if self.deliver().refused:
            raise AttemptRefused

    def linger(self, seconds: float) -> Delivered:
        """Deliver until nothing is left or the time is over; the agent delivers the rest."""
        deadline = time.monotonic() + seconds
        pauses = growing_pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while (done := self.deliver()).left and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, next(pauses)))
        return done

    def discard(self) -> None:
        """Drop the folder of an attempt that is not ours."""
        self._box.discard()

    def _report(self, status: MajorStatus, minor_status: str | None, values: dict[str, object]) -> dict[str, object]:
        report: dict[str, object] = {
            "t_id": self._run.job_id,
            "inst_id": self._run.instance_id,
            "major_status": str(status),
            "minor_status": minor_status,
            "attempt": self._run.attempt,
            "sequence": self._number(),
            "runner": self._runner,
        }
        return report | {name: value for name, value in values.items() if value is not None}

    def _number(self) -> int:
        """Return the number of the next report."""
        with self._numbering:
            self._sequence += 1
            return self._sequence


class Courier:
    """A thread that delivers while the main one is busy, and sends a sample every ``interval`` seconds.

    ``measure`` returns the sample, or None if there is nothing to measure: then an empty sample is the sign of life.
    ``refused`` is called in the thread, once, when the server wants the attempt to stop.
    """

    def __init__(
        self, reporter: Reporter, interval: float, measure: Callable[[], Usage | None], refused: Callable[[], None]
    ) -> None:
        self._reporter, self._interval = reporter, interval
        self._measure, self._refused = measure, refused
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stopped = True
        self._wake.set()
        if error is None:  # else there is a payload to stop, which must not wait for a server that hangs
            self._thread.join(2 * ANSWER_SECONDS)

    def poke(self) -> None:
        """Deliver now what is kept."""
        self._wake.set()

    def _work(self) -> None:
        while True:
            poked = self._wake.wait(self._interval * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
            self._wake.clear()
            if self._stopped:
                return
            if not poked:
                self._sample()
            if self._reporter.deliver().refused:
                self._refused()
                return

    def _sample(self) -> None:
        usage = self._measure()
        values = {"cpu": round(usage.cpu_seconds, 2), "memory": round(usage.memory_mb, 1)} if usage else {}
        self._reporter.keep(MajorStatus.RUNNING, None, **values)
