from hypothesis import given
from hypothesis import strategies as st

from DmpWorkflow.core.samples import append_thinned


@given(count=st.integers(1, 2000), limit=st.integers(2, 50))
def test_samples_stay_bounded_ordered_and_span_the_run(count: int, limit: int) -> None:
    samples: list[int] = []
    for number in range(count):
        samples = append_thinned(samples, number, limit)
        assert len(samples) <= limit
    assert samples == sorted(set(samples))
    assert (samples[0], samples[-1]) == (0, count - 1)


def test_a_short_list_is_kept_whole() -> None:
    assert append_thinned([1, 2, 3], 4, limit=4) == [1, 2, 3, 4]
    assert append_thinned([1, 2, 3, 4], 5, limit=4) == [1, 3, 5]
