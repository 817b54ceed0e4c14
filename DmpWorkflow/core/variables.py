"""Variables: which value wins, and what ``$VAR`` and ``${VAR}`` stand for. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.utils.errors import InvalidInput

REFERENCE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")
LONGEST_VALUE = 64 * 1024  # characters; references to references can grow without end
MOST_TOGETHER = 1024 * 1024  # characters of all values of a job; no process could start with much more


_TOO_LONG = f"variable {{}}: its value grows beyond {LONGEST_VALUE} characters"


class GrowsTooLong(InvalidInput):
    """A text becomes too long when its variables are filled in."""


class VariableCycle(InvalidInput):
    """Variables refer to each other in a circle."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace references by their values; unknown ones stay, for the worker node to resolve.

    Raises GrowsTooLong before it takes the memory for that.
    """
    length = len(text)

    def value_of(match: re.Match[str]) -> str:
        nonlocal length
        value = values.get(match["braced"] or match["plain"], match[0])
        length += len(value) - len(match[0])
        if length > max(LONGEST_VALUE, len(text)):
            raise GrowsTooLong(f"{text[:40]!r} grows beyond {LONGEST_VALUE} characters")
        return value

    return REFERENCE.sub(value_of, text)


def resolve(layers: Sequence[Sequence[Variable]]) -> tuple[Variable, ...]:
    """Merge layers, the weakest first, and resolve references between variables in the order of dependence.

    A value that refers to its own name means the value of a weaker layer; where there is none, the reference
    stays. Raises VariableCycle, and InvalidInput for a value that grows beyond bounds.
    """
    merged: dict[str, Variable] = {}
    together = 0
    for layer in layers:
        for variable in layer:
            below = merged.get(variable.name)
            value = _filled(variable, {variable.name: below.value}) if below else variable.value
            merged[variable.name] = replace(variable, value=value)
            together = _bounded(together + len(value) - (len(below.value) if below else 0))
    resolved: dict[str, str] = {}
    together = 0
    for name in merged:
        for value in _resolve(name, merged, resolved):
            together = _bounded(together + len(value))
    return tuple(replace(variable, value=resolved[name]) for name, variable in merged.items())


def _resolve(start: str, merged: Mapping[str, Variable], resolved: dict[str, str]) -> Iterator[str]:
    """Resolve a variable and all that it depends on, and yield their values.

    With a stack of our own, since chains may be long.
    """
    path = [start]
    while path:
        name = path[-1]
        wanted = [other for other in _references(merged[name]) if other in merged and other not in resolved]
        if name in resolved or not wanted:
            if name not in resolved:
                resolved[name] = _filled(merged[name], resolved)
                yield resolved[name]
            path.pop()
        elif wanted[0] in path:
            circle = [*path[path.index(wanted[0]) :], wanted[0]]
            raise VariableCycle(f"variables refer to each other in a circle: {' -> '.join(circle)}")
        else:
            path.append(wanted[0])


def _references(variable: Variable) -> list[str]:
    names = [match["braced"] or match["plain"] for match in REFERENCE.finditer(variable.value)]
    return [name for name in names if name != variable.name]


def _filled(variable: Variable, values: Mapping[str, str]) -> str:
    try:
        value = expand(variable.value, values)
    except GrowsTooLong:
        raise GrowsTooLong(_TOO_LONG.format(variable.name)) from None
    if len(value) > LONGEST_VALUE:
        raise GrowsTooLong(_TOO_LONG.format(variable.name))
    return value


def _bounded(together: int) -> int:
    if together > MOST_TOGETHER:
        raise GrowsTooLong(f"the values of all variables together grow beyond {MOST_TOGETHER} characters")
    return together
