"""What demonstration data show: sites with their troubles, jobs in families, and when sites work. Pure."""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.core.job_xml import serialise_jobs

HOUR = 3600.0
SPAN = timedelta(days=31)  # of the history
AHEAD = timedelta(days=60)  # for which calendars know when a site will work
SHOWCASE = 400  # instances of the youngest job: the same one, whatever the number of all instances


@dataclass(frozen=True)
class DemoSite:
    """A site; ``batch_id`` is how its batch system names element {1} of job {0}.

    It took no work in the last ``quiet`` seconds; ``hole`` is the number of a host that fails all that it gets.
    """

    name: str
    domain: str
    hosts: int
    agents: tuple[str, ...]
    batch_id: str
    share: float
    failing: float = 1.0  # times the failing fraction of a job
    quiet: float = 0.0
    silent: bool = False
    problem: str = ""
    hole: int | None = None

    def host(self, number: int) -> str:
        """Return the name of a host, from number 0 on."""
        return f"wn{number + 1:03d}.{self.domain}"


SITES = (
    DemoSite("CNAF", "cr.cnaf.infn.it", 120, ("ui02-dampe", "ui03-dampe"), "{0}[{1}]", 0.34),
    DemoSite("PMO", "pmo.ac.cn", 60, ("login1",), "{0}.{1}", 0.22, quiet=7 * HOUR, silent=True),
    DemoSite(
        "GENEVA", "dpnc.unige.ch", 40, ("atlas-ui",), "{0}_{1}", 0.14, failing=1.5, quiet=2 * HOUR,
        problem="squeue: no answer within 60 s",
    ),
    DemoSite("BARI", "recas.ba.infn.it", 60, ("ui-dampe",), "{0}.{1}", 0.2, hole=12),
    DemoSite("PERUGIA", "pg.infn.it", 24, ("grid-ui",), "{0}[{1}].pbs.pg.infn.it", 0.1, failing=0.5),
)  # fmt: skip
PARTICLES = ("allProton", "allElectron", "allGamma", "allHe4", "allC12", "allFe56", "allMuon", "allLi7")
RELEASES = ("v6r0p1", "v6r0p10", "v5r4p2", "v6r0p15")
ENERGIES = ("1GeV_10GeV", "10GeV_100GeV", "100GeV_1TeV", "1TeV_10TeV", "10TeV_100TeV", "100TeV_1PeV")
PEOPLE = ("anna", "valentina", "stephan", "xiaojun", "ivan")
TAGS = ("paper-2026", "calibration", "urgent", "validation", "release-check")
STUDIES = ("photon-skim", "electron-id", "alignment", "psd-charge", "trigger-study")
# Families of jobs: type and suffix of each member, each the parent of the next.
MONTE_CARLO = (("Generation", ""), ("Digitization", "-digi"), ("Reconstruction", "-reco"))
FAMILIES = (
    MONTE_CARLO, (("User", ""),), MONTE_CARLO, (("SimuDigi", ""), ("Reco", "-reco")), MONTE_CARLO,
    (("Data", ""), ("Reco", "-reco")), MONTE_CARLO, (("Other", ""),),
)  # fmt: skip
SCRIPTS = {
    "Generation": "source ${DAMPE_SW_DIR}/setup.sh\nDmpSim -n ${NEVENTS} -p ${PARTICLE} --seed ${DWF_SEED}\n",
    "Digitization": "source ${DAMPE_SW_DIR}/setup.sh\nDmpDigi -i input.root -o output.root\n",
}
OTHER_SCRIPT = "source ${DAMPE_SW_DIR}/setup.sh\npython3 ${DAMPE_SW_DIR}/share/reco.py input.root output.root\n"


@dataclass(frozen=True)
class PlannedJob:
    """A job that is to be made, and how its instances are to do; times in seconds (since 1970, where absolute)."""

    title: str
    type: str
    site: DemoSite
    release: str
    priority: int
    instances: int
    created: float
    working: float  # time in which the site would start all instances
    wall: float  # median
    memory: float  # median peak, MB
    failing: float  # fraction
    usual: int  # which kind of failure is the usual one
    owner: str
    tags: tuple[str, ...]
    archived: bool = False
    showcase: bool = False

    @property
    def xml(self) -> bytes:
        """The job's definition."""
        target = "${EXEC_DIR_ROOT}/data/${DWF_TASKNAME}/${DWF_SIXDIGIT}.root"
        particle = Variable("PARTICLE", self.title.partition("-")[0])
        definition = JobDefinition(
            executable="/bin/bash", script=SCRIPTS.get(self.type, OTHER_SCRIPT), release=self.release, type=self.type,
            name=self.title, site=self.site.name, priority=self.priority,
            variables=(particle, Variable("NEVENTS", "10000", "int")),
            output_files=(File("output.root", target, "root"),),
        )  # fmt: skip
        return serialise_jobs([definition])

    def slug(self, seed: str) -> str:
        """Return the job's key in addresses."""
        return hashlib.sha256(f"{seed} {self.title} {self.type} {self.site.name}".encode()).hexdigest()[:12]


Family = tuple[PlannedJob, ...]


class Calendar:
    """When work goes on: by day more than by night and at weekends, and in the last ``quiet`` seconds not at all.

    Work is measured in seconds of a working day's noon.
    """

    def __init__(self, now: datetime, quiet: float = 0.0, night: float = 0.6, weekend: float = 0.5) -> None:
        begin = (now - SPAN).replace(minute=0, second=0, microsecond=0)
        self._begin, self._now = begin.timestamp(), now.timestamp()
        hours = int((SPAN + AHEAD) / timedelta(hours=1)) + 1
        rest = self._now - quiet
        marks = {self._begin + number * HOUR for number in range(hours)} | {rest, self._now}
        self._marks = sorted(marks)
        rates = [0.0 if rest <= mark < self._now else _rate(mark, night, weekend) for mark in self._marks]
        spans = [later - mark for mark, later in zip(self._marks, self._marks[1:], strict=False)]
        self._rates = rates
        self._done = [0.0, *accumulate(rate * span for rate, span in zip(rates, spans, strict=False))]

    def work(self, time: float) -> float:
        """Return how much work can have been done until then."""
        position = bisect_right(self._marks, time) - 1
        return self._done[position] + self._rates[position] * (time - self._marks[position])

    def time(self, work: float) -> float:
        """Return when so much work is done; times of rest are skipped."""
        position = min(bisect_right(self._done, work), len(self._done)) - 1
        return self._marks[position] + (work - self._done[position]) / self._rates[position]


def _rate(time: float, night: float, weekend: float) -> float:
    moment = datetime.fromtimestamp(time, UTC)
    by_day = 1.0 if 7 <= moment.hour < 19 else night
    return by_day * (1.0 if moment.weekday() < 5 else weekend)


def plan(seed: str, now: datetime, jobs: int, instances: int, taken: frozenset[str]) -> list[Family]:
    """Return ``jobs`` jobs in families with ``instances`` instances together; no title is one of ``taken``."""
    dice = random.Random(seed)  # noqa: S311 - the same data for the same seed
    titles = _titles(dice, set(taken))
    shapes = _shapes(dice, jobs)
    sizes = _sizes(dice, [len(shape) for shape in shapes], instances)
    office = Calendar(now, night=0.1, weekend=0.15)  # people submit while they work
    until = office.work(now.timestamp())
    created = [office.time(dice.random() * until) for _ in shapes]
    created[0] = now.timestamp() - 36 * HOUR
    archived = now.timestamp() - 25 * 24 * HOUR
    families = [
        _family(dice, shape, size, time, titles[_kind(shape[0][0])].pop(), showcase=position == 0)
        for position, (shape, size, time) in enumerate(zip(shapes, sizes, created, strict=True))
    ]
    return [tuple(replace(job, archived=job.created < archived) for job in family) for family in families]


def _shapes(dice: random.Random, jobs: int) -> list[Sequence[tuple[str, str]]]:
    shapes: list[Sequence[tuple[str, str]]] = [(("Generation", ""),)]
    while (left := jobs - sum(map(len, shapes))) > 0:
        shapes.append(dice.choice(FAMILIES)[:left])
    return shapes


def _sizes(dice: random.Random, members: Sequence[int], instances: int) -> list[list[int]]:
    """Return the number of instances of each job, of few some have many; a child has no more than its parent."""
    showcase = min(SHOWCASE, instances * 2 // 5)
    weights = [0.0, *(min(dice.lognormvariate(0, 1.2), 15.0) for _ in members[1:])]
    total = sum(weight * number for weight, number in zip(weights, members, strict=True)) or 1.0
    left = instances - showcase
    sizes = [[int(left * weight / total)] * number for weight, number in zip(weights, members, strict=True)]
    sizes[0] = [showcase]
    sizes[-1][0] += instances - sum(map(sum, sizes))
    return sizes


def _titles(dice: random.Random, taken: set[str]) -> dict[str, list[str]]:
    """Return titles for each kind of family, to be taken from the end, enough for all."""
    parts = ("", *(f"_p{number}" for number in range(2, 100)))
    found = {
        "people": [f"{name}-{study}-{number}" for number in range(1, 100) for name in PEOPLE for study in STUDIES],
        "flight": [f"flight-{release}_orbit{number}" for number in range(10_000, 11_000) for release in RELEASES],
        "production": [
            f"{particle}-{release}_{energy}{part}"
            for part in parts for particle in PARTICLES for release in RELEASES for energy in ENERGIES
        ],
    }  # fmt: skip
    return {
        kind: _shuffled(dice, [title for title in titles if title not in taken]) for kind, titles in found.items()
    }


def _shuffled(dice: random.Random, titles: list[str]) -> list[str]:
    """Return the titles with the first hundred at the end, in random order."""
    first = titles[:100]
    dice.shuffle(first)
    return [*reversed(titles[100:]), *first]


def _kind(job_type: str) -> str:
    return {"User": "people", "Other": "people", "Data": "flight"}.get(job_type, "production")


def _family(
    dice: random.Random, shape: Sequence[tuple[str, str]], sizes: Sequence[int], created: float, title: str,
    showcase: bool,
) -> Family:  # fmt: skip
    site = SITES[0] if showcase else dice.choices(SITES, [site.share for site in SITES])[0]
    first = PlannedJob(
        title=title,
        type=shape[0][0],
        site=site,
        release=next((word for word in RELEASES if f"-{word}_" in title), ""),
        priority=dice.choice((0, 0, 0, 0, 5, 10, -5)),
        instances=sizes[0],
        created=created,
        working=60 * HOUR if showcase else min(dice.lognormvariate(4.0, 0.8), 150.0) * HOUR,
        wall=dice.uniform(1.0, 6.0) * HOUR,
        memory=dice.uniform(500, 2500),
        failing=0.08 if showcase else min(dice.lognormvariate(-3.5, 0.9), 0.4),
        usual=dice.randrange(100),
        owner=dice.choice(PEOPLE),
        tags=tuple(dice.sample(TAGS, dice.choice((0, 1, 1, 2)))),
        showcase=showcase,
    )
    return tuple(
        replace(
            first,
            title=title + suffix,
            type=job_type,
            instances=size,
            created=created + 90.0 * position,
            wall=first.wall / (1 + 2 * position),
        )
        for position, ((job_type, suffix), size) in enumerate(zip(shape, sizes, strict=True))
    )
