"""The jobs of a campaign, and how their payloads behave."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.faults import ledger

SITES = ("north", "south", "east")
WAVE_SECONDS = 20.0
OUTPUTS = '<OutputFiles><File source="out.dat" target="{target}" file_type="text"/></OutputFiles>'


class Kind(StrEnum):
    """What a job's payloads do."""

    PARENT = "parent"  # succeeds, and leaves a file that its child reads
    CHILD = "child"
    PLAIN = "plain"
    FAILING = "failing"  # ends with exit code 3
    GREEDY = "greedy"  # takes more memory than it may, and is stopped by the watchdog


NAPS = {Kind.PARENT: 2, Kind.CHILD: 2, Kind.PLAIN: 4, Kind.FAILING: 2, Kind.GREEDY: 1}  # seconds, at most
CODES = {Kind.FAILING: 3}
WRONG_INPUT = 9  # exit code of a child that does not find what its parent wrote
GREED = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 100 || exit 7"
NUMBERS = {Kind.PARENT: 4, Kind.CHILD: 4, Kind.PLAIN: 4, Kind.FAILING: 1, Kind.GREEDY: 1}
MAY_USE_MB = 40  # of a greedy payload

XML = """<Jobs><Job name="{title}" type="User"><MetaData>{variables}</MetaData>{outputs}
<JobWrapper executable="/bin/bash"><![CDATA[
{start}
{body}
{end}
]]></JobWrapper></Job></Jobs>"""


@dataclass(frozen=True)
class PlannedJob:
    """A job that people want, its instances numbered from 1."""

    title: str
    kind: Kind
    site: str
    number: int
    parent: str = ""  # its title

    def xml(self, book: Path, store: Path) -> bytes:
        """Return the definition, with payloads that sign ``book`` and leave their files in ``store``."""
        outputs = body = variables = ""
        if self.kind is Kind.PARENT:
            outputs, body = (
                OUTPUTS.format(target=f"{store}/{self.title}/$DWF_SIXDIGIT.dat"),
                "echo $DWF_SIXDIGIT > out.dat || exit 8",
            )
        elif self.kind is Kind.CHILD:
            body = f'[ "$(cat $DWF_SIXDIGIT.dat)" = "$DWF_SIXDIGIT" ] || {{ {ledger.END.format(code=WRONG_INPUT)}; }}'
        elif self.kind is Kind.GREEDY:
            body = GREED
            variables = f'<Var name="BATCH_OVERRIDE_MEMORY" value="{MAY_USE_MB}"/>'
        nap = f"sleep $((RANDOM % {NAPS[self.kind]})).$((RANDOM % 10))"
        start, end = ledger.START.format(ledger=book), ledger.END.format(code=CODES.get(self.kind, 0))
        text = XML.format(
            title=self.title, variables=variables, outputs=outputs, start=start, body=f"{nap}\n{body}", end=end
        )
        return text.encode()

    @property
    def leaves_files(self) -> bool:
        return self.kind is Kind.PARENT

    def file(self, store: Path, instance: int) -> str:
        """Return the name that a parent's file has in the catalogue."""
        return f"{store}/{self.title}/{instance:06d}.dat"


def wave(number: int) -> Iterator[PlannedJob]:
    """Yield what people submit together, for each site, parents before their children."""
    for site in SITES:
        for kind in Kind:
            title = f"{kind}-{site}-{number}"
            parent = f"{Kind.PARENT}-{site}-{number}" if kind is Kind.CHILD else ""
            yield PlannedJob(title, kind, site, NUMBERS[kind], parent)
