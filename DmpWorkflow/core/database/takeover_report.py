"""The report of a takeover: what was taken, what was left out and why, what looks doubtful."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 20  # of each reason


@dataclass
class Findings:
    """How often something was found, and the first examples."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.number += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass
class Report:
    """What was taken (numbers by what it is), what was left out and why, and what looks doubtful."""

    taken: Counter[str] = field(default_factory=Counter)
    skipped: defaultdict[str, Findings] = field(default_factory=lambda: defaultdict(Findings))
    doubtful: defaultdict[str, Findings] = field(default_factory=lambda: defaultdict(Findings))

    def skip(self, reason: str, about: str) -> None:
        self.skipped[reason].add(about)

    def doubt(self, reason: str, about: str) -> None:
        self.doubtful[reason].add(about)

    def merge(self, other: "Report") -> None:
        """Add what another one says."""
        self.taken.update(other.taken)
        for mine, others in ((self.skipped, other.skipped), (self.doubtful, other.doubtful)):
            for reason, found in others.items():
                mine[reason].number += found.number
                mine[reason].examples = [*mine[reason].examples, *found.examples][:EXAMPLES]

    def as_document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "taken": dict(self.taken),
            "skipped": {reason: vars(found) for reason, found in self.skipped.items()},
            "doubtful": {reason: vars(found) for reason, found in self.doubtful.items()},
        }

    def lines(self) -> Iterator[str]:
        """Return it for people."""
        for what, number in sorted(self.taken.items()):
            yield f"{number} {what}"
        for verdict, findings in (("left out", self.skipped), ("doubtful", self.doubtful)):
            for reason, found in sorted(findings.items()):
                yield f"{verdict}: {found.number} x {reason}"
                yield from (f"    {example}" for example in found.examples)
                if found.number > len(found.examples):
                    yield f"    and {found.number - len(found.examples)} more"
