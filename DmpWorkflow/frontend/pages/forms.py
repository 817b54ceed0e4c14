"""What the forms of the pages send."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from DmpWorkflow.core.database.creation import MOST_AT_ONCE
from DmpWorkflow.core.retries import MOST_RETRIES
from DmpWorkflow.frontend.api.schemas import MOST_CHOSEN, InstanceChoice, Number, Text

NUMBER = re.compile("[0-9]{1,18}")


def number_list(text: str) -> list[int]:
    """Return the numbers in ``1-20, 35``; raises ValueError."""
    numbers: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not (NUMBER.fullmatch(first) and (NUMBER.fullmatch(last) or not dash)):
            raise ValueError(f"{part[:40]!r} is no number and no range such as 1-20")
        span = range(int(first), int(last or first) + 1)
        if len(span) + len(numbers) > MOST_CHOSEN:
            raise ValueError(f"these are more than {MOST_CHOSEN} numbers: choose by status or bounds instead")
        numbers += span
    return numbers


class Variables(BaseModel):
    """A form with variables, one per line as NAME=value."""

    variables: Annotated[str, Field(max_length=64 * 1024)] = ""


class MoreInstances(Variables):
    """The form that adds instances."""

    number: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]


class Chosen(InstanceChoice, Variables):
    """The forms that roll instances back or end them: all that match, or ``numbers`` as in 1-20, 35."""

    which: Literal["filter", "numbers"]
    numbers: Annotated[list[Number], BeforeValidator(number_list)] = []


class JobForm(BaseModel):
    """The form of a job's priority, tags and retries."""

    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
    tags: Text = ""
    retries: Annotated[int, Field(ge=0, le=MOST_RETRIES)] = 0
    retry_on: Text = ""


class PauseForm(BaseModel):
    """The button that pauses a job or lets it go on."""

    paused: bool


class ArchiveForm(BaseModel):
    """The button that puts a job aside or brings it back."""

    archived: bool


class Confirmation(BaseModel):
    """A form that needs the name of what it destroys."""

    confirm: Text


class LogSearch(BaseModel):
    """The page of an instance: what to look for in the log."""

    find: Text = ""
