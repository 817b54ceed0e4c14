"""Batch ids as the original's clients send them: numbers, floats and whole sentences. Pure."""

import re

_SENTENCE = re.compile(r"Job <([^<>]+)>")  # what LSF's bsub prints
_FLOAT = re.compile(r"(\d+)\.0")  # a whole number that went through a float, or the first process of a cluster


def normalise_batch_id(text: str | int | float | None) -> str | None:
    """Return what identifies a job in its batch system, as text; None for nothing or "-1".

    ``172831.0`` -> ``172831``, ``Job <32110807> is submitted ...`` -> ``32110807``; ``4711.server``,
    ``123[4]`` and ``123_4`` stay as they are.
    """
    word = "" if text is None else str(text).strip()
    if sentence := _SENTENCE.search(word):
        word = sentence.group(1)
    if number := _FLOAT.fullmatch(word):
        word = number.group(1)
    return word if word not in ("", "None", "-1") else None


def same_batch_job(one: str | None, other: str | None) -> bool:
    """Say whether two normalised ids may name the same job; None may be any.

    The original's payload reports only the leading number of what its agent reported.
    """
    return one is None or other is None or _number(one) == _number(other)


def _number(batch_id: str) -> str:
    match = re.match(r"\d+", batch_id)
    return match.group() if match else batch_id
