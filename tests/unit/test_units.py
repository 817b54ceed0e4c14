import pytest

from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.units import parse_clock, parse_memory


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("4000", 4000),
        ("1000.", 1000),
        ("4GB", 4096),
        ("500mb", 500),
        ("2 g", 2048),
        ("1024000", 1000),
        ("512kB", 0.5),
    ],
)
def test_memory(text: str, megabytes: float) -> None:
    assert parse_memory(text) == megabytes


@pytest.mark.parametrize("text", ["", "0", "many", "-5", "4XB", "nan"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no amount of memory"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("01:00", 3600), ("24:00", 86400), ("00:01:30", 90), ("120:00", 432000)]
)
def test_clock(text: str, seconds: int) -> None:
    assert parse_clock(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "01:60", "01:00:60", "1h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="HH:MM"):
        parse_clock(text)
