"""What one instance has of its own: variables and files that win over the job's. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from DmpWorkflow.core.job_definition import File, Variable
from DmpWorkflow.utils.errors import InvalidInput

LARGEST = 64 * 1024  # characters of the JSON text of one instance
LONGEST_NUMBER = 1024  # bits
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # what a shell can export, as in the XML


@dataclass(frozen=True)
class Overrides:
    """Variables and files of one instance."""

    variables: tuple[Variable, ...] = ()
    input_files: tuple[File, ...] = ()
    output_files: tuple[File, ...] = ()

    def to_json(self) -> str:
        """Return the text that is stored with the instance; empty if there is nothing to store."""
        if self == Overrides():
            return ""
        files = {"InputFiles": self.input_files, "OutputFiles": self.output_files}
        document = {key: [vars(item) for item in items] for key, items in files.items()}
        return json.dumps(document | {"MetaData": [vars(item) for item in self.variables]}, ensure_ascii=False)


def from_json(text: str) -> Overrides:
    """Return what ``to_json`` wrote; raises InvalidInput for any other text, which old data may hold."""
    if not text:
        return Overrides()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInput("override_dict: what is stored is no JSON object")
    return from_mapping(document)


def from_mapping(document: Mapping[str, Any]) -> Overrides:
    """Return the overrides in a dictionary with InputFiles, OutputFiles and MetaData (the original's form).

    Raises InvalidInput naming what is wrong.
    """
    if unknown := set(document) - {"InputFiles", "OutputFiles", "MetaData"}:
        raise InvalidInput(
            f"override_dict: unknown key {min(map(str, unknown))!r}: expected InputFiles, OutputFiles, MetaData"
        )
    overrides = Overrides(
        variables=tuple(_variable(item) for item in _items(document, "MetaData") if item.get("name") != ""),
        input_files=tuple(_file(item) for item in _items(document, "InputFiles")),
        output_files=tuple(_file(item) for item in _items(document, "OutputFiles")),
    )
    if len(overrides.to_json()) > LARGEST:
        raise InvalidInput(f"override_dict: larger than {LARGEST} characters")
    return overrides


def _items(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    items = document.get(key) or []
    if not isinstance(items, list | tuple) or not all(isinstance(item, Mapping) for item in items):
        raise InvalidInput(f"override_dict: {key} must be a list of objects")
    return items


def _text(item: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = item.get(key, default)
    if isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
        raise InvalidInput(f"override_dict: {key!r} is a number of more than {LONGEST_NUMBER} bits")
    if not isinstance(value, str | int | float) or _is_unfit(str(value)):
        told = ", ".join(map(repr, item))[:80]
        raise InvalidInput(f"override_dict: {key!r} is missing or no plain text in an entry that has {told}")
    return str(value)


def _is_unfit(text: str) -> bool:
    """Say whether no environment and no file can hold a text: NUL, and halves of characters."""
    return "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)


def _variable(item: Mapping[str, Any]) -> Variable:
    # Old clients write "type" where the XML says "var_type".
    kind = _text(item, "var_type", _text(item, "type", "string"))
    name = _text(item, "name")
    if not NAME.fullmatch(name):
        raise InvalidInput(f"override_dict: variable {name[:40]!r}: expected a name of letters, digits and '_'")
    return Variable(name=name, value=_text(item, "value"), var_type=kind)


def _file(item: Mapping[str, Any]) -> File:
    return File(source=_text(item, "source"), target=_text(item, "target"), file_type=_text(item, "file_type", ""))
