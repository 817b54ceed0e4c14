"""Variables: which value wins, and what ``$VAR`` and ``${VAR}`` stand for. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.utils.errors import InvalidInput

REFERENCE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")
LONGEST_VALUE = 64 * 1024  # characters; references to references can grow without end


class VariableCycle(InvalidInput):
    """Variables refer to each other in a circle."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace references by their values; unknown ones stay, for the worker node to resolve."""

    def value_of(match: re.Match[str]) -> str:
        return values.get(match["braced"] or match["plain"], match[0])

    return REFERENCE.sub(value_of, text)


def resolve(layers: Sequence[Sequence[Variable]]) -> tuple[Variable, ...]:
    """Merge layers, the weakest first, and resolve references between variables in the order of dependence.

    A value that refers to its own name means the value of a weaker layer; where there is none, the reference
    stays. Raises VariableCycle, and InvalidInput for a value that grows beyond bounds.
    """
    merged: dict[str, Variable] = {}
    for layer in layers:
        for variable in layer:
            below = merged.get(variable.name)
            value = expand(variable.value, {variable.name: below.value}) if below else variable.value
            merged[variable.name] = replace(variable, value=value)
    resolved: dict[str, str] = {}
    for name in merged:
        _resolve(name, merged, resolved)
    return tuple(replace(variable, value=resolved[name]) for name, variable in merged.items())


def _resolve(start: str, merged: Mapping[str, Variable], resolved: dict[str, str]) -> None:
    """Resolve one variable and all that it depends on; a stack of our own, since chains may be long."""
    path = [start]
    while path:
        name = path[-1]
        wanted = [other for other in _references(merged[name]) if other in merged and other not in resolved]
        if name in resolved or not wanted:
            resolved.setdefault(name, _bounded(name, expand(merged[name].value, resolved)))
            path.pop()
        elif wanted[0] in path:
            circle = [*path[path.index(wanted[0]) :], wanted[0]]
            raise VariableCycle(f"variables refer to each other in a circle: {' -> '.join(circle)}")
        else:
            path.append(wanted[0])


def _references(variable: Variable) -> list[str]:
    names = [match["braced"] or match["plain"] for match in REFERENCE.finditer(variable.value)]
    return [name for name in names if name != variable.name]


def _bounded(name: str, value: str) -> str:
    if len(value) > LONGEST_VALUE:
        raise InvalidInput(f"variable {name}: its value grows beyond {LONGEST_VALUE} characters")
    return value
