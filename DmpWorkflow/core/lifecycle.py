"""The life of an instance: its statuses and the changes between them. Pure: no database, no network."""

from enum import StrEnum
from types import MappingProxyType

from DmpWorkflow.utils.errors import Conflict


class MajorStatus(StrEnum):
    """Where an instance stands; the words are those of the original's clients."""

    NEW = "New"  # waits at the server for an agent (or is claimed and not yet reported as submitted)
    SUBMITTED = "Submitted"  # waits in the batch system's queue
    RUNNING = "Running"  # its payload runner has reported
    SUSPENDED = "Suspended"  # held or stopped by the batch system; goes back to Submitted or Running
    DONE = "Done"  # final: the payload succeeded and its files are staged out
    FAILED = "Failed"  # final: the payload, its staging or its submission failed
    TERMINATED = "Terminated"  # final: stopped by watchdog, batch system or a person
    UNKNOWN = "Unknown"  # nobody can tell; reversible


FINAL = frozenset({MajorStatus.DONE, MajorStatus.FAILED, MajorStatus.TERMINATED})
ACTIVE = frozenset({MajorStatus.SUBMITTED, MajorStatus.RUNNING, MajorStatus.SUSPENDED, MajorStatus.UNKNOWN})

# A report may skip steps: a payload can be faster than the agent that submitted it. A roll-back (to New) is
# an order, not a report, and so is not in this table.
TRANSITIONS = MappingProxyType(
    {
        MajorStatus.NEW: ACTIVE | FINAL,
        MajorStatus.SUBMITTED: (ACTIVE | FINAL) - {MajorStatus.SUBMITTED},
        MajorStatus.RUNNING: (ACTIVE | FINAL) - {MajorStatus.RUNNING, MajorStatus.SUBMITTED},
        MajorStatus.SUSPENDED: (ACTIVE | FINAL) - {MajorStatus.SUSPENDED},
        MajorStatus.UNKNOWN: (ACTIVE | FINAL) - {MajorStatus.UNKNOWN},
        MajorStatus.DONE: frozenset[MajorStatus](),
        MajorStatus.FAILED: frozenset[MajorStatus](),
        MajorStatus.TERMINATED: frozenset[MajorStatus](),
    }
)


class IllegalTransition(Conflict):
    """An instance cannot change between these statuses."""

    def __init__(self, current: MajorStatus, wanted: MajorStatus) -> None:
        hint = "; only a roll-back leaves a final status" if current in FINAL else ""
        super().__init__(f"an instance in status {current} cannot become {wanted}{hint}")
        self.current = current
        self.wanted = wanted


def check_transition(current: MajorStatus, wanted: MajorStatus) -> None:
    """Raise IllegalTransition unless a report may move an instance from ``current`` to ``wanted``.

    Staying in the same status is always allowed, so that a repeated report changes nothing.
    """
    if wanted is not current and wanted not in TRANSITIONS[current]:
        raise IllegalTransition(current, wanted)
