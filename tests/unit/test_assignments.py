import pytest
from hypothesis import given
from hypothesis import strategies as st

from DmpWorkflow.frontend.cli.assignments import parse_assignments
from DmpWorkflow.utils.errors import InvalidInput


@pytest.mark.parametrize(
    ("texts", "variables"),
    [
        (["a=1;b=2"], {"a": "1", "b": "2"}),
        (["a=1", "b=2", "a=3"], {"a": "3", "b": "2"}),
        (["a=x=y"], {"a": "x=y"}),
        (['a="x;y=z";b=2'], {"a": "x;y=z", "b": "2"}),
        (["a='it''s'"], {"a": "it''s"}),
        ([r"a=x\;y"], {"a": "x;y"}),
        (["a=;"], {"a": ""}),
        (["a=it's"], {"a": "it's"}),
        ([""], {}),
    ],
)
def test_assignments(texts: list[str], variables: dict[str, str]) -> None:
    assert parse_assignments(texts) == variables


@pytest.mark.parametrize("text", ["a", "=1", "1a=2", "a b=1", 'a="x;y'])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected NAME=VALUE|is not closed"):
        parse_assignments([text])


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), st.text()))
def test_every_value_can_be_given_in_quotes(variables: dict[str, str]) -> None:
    quoted = {name: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in variables.items()}
    assert parse_assignments([";".join(f"{name}={value}" for name, value in quoted.items())]) == variables
