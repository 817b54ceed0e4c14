"""What a payload sees of its job and its attempt, as its runner sets it and as a preview shows it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from DmpWorkflow.core.variables import expand


class NamedValue(Protocol):
    """A variable, as the server or a worker node holds it."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> str: ...


def six_digits(instance: int) -> str:
    """Return the instance number as payloads and their folders know it."""
    return f"{instance:06d}"


def facts_of_attempt(
    job_id: str, instance: int, attempt: int, title: str, job_type: str, release: str
) -> dict[str, str]:
    """Return the automatic variables that are the same wherever the attempt runs."""
    return {
        "DWF_JOB_ID": job_id,
        "DWF_INSTANCE_ID": str(instance),
        "DWF_SIXDIGIT": six_digits(instance),
        "DWF_ATTEMPT": str(attempt),
        "DWF_TASKNAME": title,
        "DWF_JOBNAME": title,
        "DWF_TYPE": job_type,
        "DWF_SW_VERSION": release,
        "RELEASE_TAG": release,
    }


def merge(
    worker: Mapping[str, str],
    attributes: Mapping[str, str],
    facts: Mapping[str, str],
    variables: Iterable[NamedValue],
) -> dict[str, str]:
    """Return a payload's environment: later variables may use earlier ones, and nothing replaces a fact."""
    environment = {**worker, **attributes, **facts}
    for variable in variables:
        environment[variable.name] = expand(variable.value, environment)
    return {**environment, **facts}
