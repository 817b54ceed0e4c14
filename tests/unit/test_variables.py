import pytest

from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.core.variables import LONGEST_VALUE, VariableCycle, expand, resolve
from DmpWorkflow.utils.errors import InvalidInput


def resolved(*layers: dict[str, str]) -> dict[str, str]:
    return {
        variable.name: variable.value
        for variable in resolve([[Variable(name, value) for name, value in layer.items()] for layer in layers])
    }


def test_expand_knows_both_spellings_and_leaves_what_is_unknown() -> None:
    assert expand("$A-${A}b-$Ab-${DAMPE_SW_DIR}-$-$$A", {"A": "1"}) == "1-1b-$Ab-${DAMPE_SW_DIR}-$-$1"


def test_the_nearer_layer_wins() -> None:
    assert resolved({"A": "parent", "B": "parent", "C": "parent"}, {"A": "job", "B": "job"}, {"A": "instance"}) == {
        "A": "instance",
        "B": "job",
        "C": "parent",
    }


def test_references_are_resolved_in_the_order_of_dependence() -> None:
    assert (
        resolved({"FILE": "${DIR}/$NAME", "DIR": "$ROOT/out", "ROOT": "/data", "NAME": "x"})["FILE"] == "/data/out/x"
    )


def test_a_weaker_variable_sees_the_stronger_value() -> None:
    assert resolved({"FILE": "$DIR/x", "DIR": "/a"}, {"DIR": "/b"})["FILE"] == "/b/x"


def test_a_reference_to_the_own_name_means_the_layer_below() -> None:
    assert resolved({"PATH": "/a"}, {"PATH": "/b:$PATH"}) == {"PATH": "/b:/a"}
    assert resolved({"PATH": "/b:$PATH"}) == {"PATH": "/b:$PATH"}


def test_a_circle_is_named() -> None:
    with pytest.raises(VariableCycle, match="A -> B -> C -> A"):
        resolved({"A": "$B", "B": "$C", "C": "$A"})


def test_long_chains_are_no_problem() -> None:
    chain = {f"V{number}": f"$V{number + 1}" for number in range(5000)} | {"V5000": "end"}
    assert resolved(chain)["V0"] == "end"


def test_a_value_cannot_explode() -> None:
    bomb = {f"V{number}": f"$V{number + 1}" * 10 for number in range(10)} | {"V10": "x" * 10}
    with pytest.raises(InvalidInput, match=f"grows beyond {LONGEST_VALUE}"):
        resolved(bomb)
