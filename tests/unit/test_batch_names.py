"""Names of batch jobs can be read back, and fit into what systems take."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from DmpWorkflow.backend.batch_names import LONGEST_NAME, batch_name, member, members, split_by_name
from DmpWorkflow.backend.interface import AttemptKey

JOB = "6b04cc916a00b242cb9c95ef"
keys = st.builds(AttemptKey, st.sampled_from([JOB, JOB[::-1]]), st.integers(1, 10**7), st.integers(1, 3))
groups = st.lists(keys, unique=True, min_size=1, max_size=60).map(sorted)


@given(groups, st.integers(1, 50))
def test_every_element_of_every_array_can_be_read_back(group: list[AttemptKey], most: int) -> None:
    order = sorted(group, key=lambda key: (key.job_id, key.attempt, key.instance_id))
    parts = list(split_by_name(order, most))
    assert [key for part in parts for key in part] == order
    for part in parts:
        name = batch_name(part)
        assert len(part) <= most and len(name) <= LONGEST_NAME
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9+_.-]*", name)  # what every system takes
        assert members(name) == tuple(part)
        assert [member(name, number + 1) for number in range(len(part))] == part


def test_a_run_of_instances_has_a_short_name() -> None:
    many = [AttemptKey(JOB, number, 1) for number in range(1, 1001)]
    assert [batch_name(part) for part in split_by_name(many, 1000)] == [f"dwf-{JOB}-1+999-1"]
    assert batch_name(many[:1]) == many[0].name


@pytest.mark.parametrize("name", ["other", "dwf-", f"dwf-{JOB}-1-", f"dwf-{JOB}-1+99999999999-1", f"dwf-{JOB}-1_-1"])
def test_what_is_not_ours_has_no_elements(name: str) -> None:
    assert members(name) == ()
    assert member(name, 1) is None


def test_an_index_beyond_the_array_is_nobody() -> None:
    name = batch_name([AttemptKey(JOB, 1, 1), AttemptKey(JOB, 2, 1)])
    assert member(name, 3) is None and member(name, 0) == member(name, None)
