"""People who submit jobs, wave after wave, and repeat what failed until it is confirmed."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pymongo.errors import PyMongoError

from DmpWorkflow.utils.errors import Conflict, InvalidInput, Unavailable
from tests.faults.checker import Acknowledged
from tests.faults.installation import Installation
from tests.faults.work import WAVE_SECONDS, PlannedJob, wave

PAUSE = 0.5
MOST_UNFINISHED = 50
BAD_XML = b'<Jobs><Job name="%s" type="User"><JobWrapper>no executable</JobWrapper></Job></Jobs>'


class People:
    """They work in a thread of their own; ``confirmed`` has their jobs by id."""

    def __init__(self, installation: Installation, waves: int) -> None:
        self.confirmed: dict[str, Acknowledged] = {}
        self.refused: list[str] = []
        self.repeated = 0  # calls that failed plainly, and were made again
        self.problems: list[str] = []
        self._installation = installation
        self._client = installation.people
        self._waves = waves
        self._slugs: dict[str, tuple[str, str]] = {}  # by title: slug and id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="people")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let them finish what they are at, and go."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Say whether all was submitted within this time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        for number in range(self._waves):
            for job in wave(number):
                try:
                    self._submit(job)
                except Exception as error:  # reported by the checker's side, which looks at this list
                    self.problems.append(f"{job.title}: {type(error).__name__}: {error}")
            self._try_nonsense(f"nonsense-{number}")
            if self._stop.wait(WAVE_SECONDS) or self._wait_for_others():
                return

    def _wait_for_others(self) -> bool:
        """Wait while much is unfinished: how fast it goes is up to the machine. True if it is time to go."""
        while not self._stop.wait(PAUSE):
            with suppress(PyMongoError):  # the primary changes
                if self._installation.unfinished() < MOST_UNFINISHED:
                    return False
        return True

    def _submit(self, job: PlannedJob) -> None:
        store = self._installation.store(job.site)
        xml = job.xml(self._installation.ledger, store)
        parents = [self._slugs[job.parent][0]] if job.parent else []
        made = self._insist(lambda: self._client.create_job(xml, site=job.site, parents=parents))["jobs"][0]
        self._slugs[job.title] = made["slug"], made["jobID"]
        self._insist(lambda: self._fill(job))
        parent = self._slugs[job.parent][1] if job.parent else ""
        files = [job.file(store, number) for number in range(1, job.number + 1)] if job.leaves_files else []
        self.confirmed[made["jobID"]] = Acknowledged(job.title, job.kind, job.site, job.number, parent, tuple(files))

    def _fill(self, job: PlannedJob) -> None:
        with suppress(Conflict):  # an earlier try came through, and only its reply was lost
            self._client.add_instances(job.title, "User", job.number, site=job.site, first=1)

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Repeat a call until it is confirmed; it must be one that may be repeated."""
        while True:
            try:
                return call()
            except Unavailable:
                self.repeated += 1
                time.sleep(PAUSE)

    def _try_nonsense(self, title: str) -> None:
        """Submit what must be refused whole."""
        self.refused.append(title)
        try:
            self._insist(lambda: self._client.create_job(BAD_XML % title.encode(), site="north", instances=3))
        except InvalidInput:
            return
        self.problems.append(f"{title} was accepted")
