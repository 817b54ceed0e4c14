"""What backends that are driven by commands have in common: grouping, arrays, and what failures mean."""

import logging
import os
import pwd
import re
import shlex
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

from DmpWorkflow.backend import batch_names
from DmpWorkflow.backend.commands import Commands, Output
from DmpWorkflow.backend.element_script import BATCH_ID_VARIABLE, ElementWords, element_script
from DmpWorkflow.backend.interface import AttemptKey, Backend, BatchJob, Submission, Submitted
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.core.batch_needs import BatchNeeds
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import InvalidInput, Unavailable

MOST_ARGUMENTS = 2000  # ids in one call: the system's limit is 128 KB in one argument, 2 MB in all

logger = logging.getLogger(__name__)


class TooManyElements(Exception):
    """The batch system takes smaller arrays only."""


class LimitReached(Exception):
    """A queue or a user has as many jobs as the batch system allows: fewer may fit, or more later."""


class Refused(InvalidInput):
    """The batch system does not accept the job."""


class CommandBackend(Backend):
    """Submits groups of jobs with equal needs by commands.

    A subclass says how one group is submitted, and by which words a refusal can be told from bad weather.
    """

    batch_id_variable: ClassVar[str] = BATCH_ID_VARIABLE
    environment: ClassVar[dict[str, str]] = {}
    most_elements = 1000  # of one submission; less once the system says so
    weather: ClassVar[re.Pattern[str]]  # messages of a system that is down or busy: try again later
    at_limit: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")  # messages about the number of jobs in a queue
    too_large: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")  # messages about the size of an array

    def __init__(self, site: SiteSettings, commands: Commands) -> None:
        self.site = site
        self.commands = commands
        self.user = pwd.getpwuid(os.geteuid()).pw_name

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the backend of the site's settings."""
        return cls(settings.site, Commands.from_settings(settings, **cls.environment))

    @abstractmethod
    def submit_group(self, name: str, group: Sequence[Submission]) -> list[str]:
        """Submit jobs with equal needs in one call and return their batch ids.

        Raises Refused, TooManyElements, LimitReached or Unavailable; see ``complain``.
        """

    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Submit all; from the first call on that is not answered, the rest is left for later."""
        results: dict[AttemptKey, Submitted] = {}
        waiting = deque(self._groups(submissions))
        while waiting:
            group = waiting.popleft()
            if len(group) > self.most_elements:
                waiting.extendleft(reversed(_halves(group)))
                continue
            try:
                ids = self.submit_group(batch_names.batch_name([item.key for item in group]), group)
            except Refused as error:
                results |= {item.key: Submitted(item.key, error=str(error)) for item in group}
            except TooManyElements as error:
                if len(group) == 1:
                    results |= {item.key: Submitted(item.key, error=str(error)) for item in group}
                else:
                    self.most_elements = (len(group) + 1) // 2
                    waiting.appendleft(group)
            except LimitReached as error:
                if len(group) > 1:
                    waiting.extendleft(reversed(_halves(group)))
                    continue
                same = [part for part in waiting if part[0].needs == group[0].needs]
                results |= {
                    item.key: Submitted(item.key, later=str(error)) for part in (group, *same) for item in part
                }
                waiting = deque(part for part in waiting if part[0].needs != group[0].needs)
            except Unavailable as error:
                left = [item for part in (group, *waiting) for item in part]
                results |= {item.key: Submitted(item.key, later=str(error)) for item in left}
                break
            else:
                pairs = zip(group, ids, strict=True)
                results |= {item.key: Submitted(item.key, batch_id) for item, batch_id in pairs}
        return [results[item.key] for item in submissions]

    def _groups(self, submissions: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
        by_needs: defaultdict[BatchNeeds, dict[AttemptKey, Submission]] = defaultdict(dict)
        for item in submissions:
            by_needs[item.needs][item.key] = item
        for group in by_needs.values():
            order = sorted(group, key=lambda key: (key.job_id, key.attempt, key.instance_id))
            for keys in batch_names.split_by_name(order, self.most_elements):
                yield [group[key] for key in keys]

    def complain(self, output: Output) -> Exception:
        """Return the error for a submission that failed."""
        if self.too_large.search(output.message):
            return TooManyElements(output.message)
        if self.at_limit.search(output.message):
            return LimitReached(f"{output.command}: {output.message}")
        if self.weather.search(output.message):
            return output.unavailable()
        return Refused(f"{output.command}: {output.message}")

    @staticmethod
    def script(name: str, group: Sequence[Submission], words: ElementWords) -> str:
        """Return the script that starts each of the group's elements in its folder."""
        return element_script(name, group, words, array=len(group) > 1)


def _halves(group: Sequence[Submission]) -> list[Sequence[Submission]]:
    half = (len(group) + 1) // 2
    return [group[:half], group[half:]]


def found_job(
    name: str,
    index: int | None,
    batch_id: str,
    status: MajorStatus | None,
    word: str,
    *,
    detail: str = "",
    held: bool = False,
    cpu_seconds: float | None = None,
    memory_mb: float | None = None,
) -> BatchJob | None:
    """Return what the queue tells of one of our jobs, None for another's; a state that nobody knows is Unknown."""
    key = batch_names.member(name, index)
    if key is None:
        return None
    status, detail = _known(batch_id, status, word, detail)
    return BatchJob(key, batch_id, status, detail, held, cpu_seconds, memory_mb)


def found_elements(
    name: str,
    array: str,
    indices: Iterable[int],
    status: MajorStatus | None,
    word: str,
    *,
    detail: str = "",
    held: bool = False,
) -> list[BatchJob]:
    """Return what the queue tells of these elements of one of our arrays; ``array`` and the index are a batch id."""
    members = batch_names.members(name)
    if not members:
        return []
    status, detail = _known(array, status, word, detail)
    last = len(members)
    return [
        BatchJob(members[index - 1], f"{array}{index}", status, detail, held)
        for index in indices
        if 0 < index <= last
    ]


def _known(batch_id: str, status: MajorStatus | None, word: str, detail: str) -> tuple[MajorStatus, str]:
    if status is not None:
        return status, detail
    logger.warning("%s is in state %r, which is not known: please report it", batch_id, word)
    return MajorStatus.UNKNOWN, f"state {word} {detail}".strip()


def by_key(jobs: Iterable[BatchJob | None]) -> dict[AttemptKey, BatchJob]:
    """Return the jobs by their keys; of two of one name, the one that runs."""
    found: dict[AttemptKey, BatchJob] = {}
    for job in jobs:
        if job is not None and found.setdefault(job.key, job) is not job and job.status is MajorStatus.RUNNING:
            found[job.key] = job
    return found


def words_of(extra: str) -> list[str]:
    """Return extra options as separate arguments. Raises Refused if a quotation is not closed."""
    try:
        return shlex.split(extra)
    except ValueError as error:
        raise Refused(f"extra options {extra!r}: {error}") from None


def garbage(command: str, line: str) -> Unavailable:
    """Return the error for an answer that cannot be understood, which is no answer."""
    return Unavailable(f"{command} printed what cannot be understood: {line[:200]!r}")
