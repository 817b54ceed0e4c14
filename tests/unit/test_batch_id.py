import pytest

from DmpWorkflow.core.batch_id import normalise_batch_id, same_batch_job


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (172831, "172831"),
        (172831.0, "172831"),
        ("172831.0", "172831"),
        ("172831.1", "172831.1"),
        ("4711.server", "4711.server"),
        ("123[4]", "123[4]"),
        ("123_4", "123_4"),
        ("Job <32110807> is submitted to queue <short>.", "32110807"),
        ("None", None),
        ("", None),
        (None, None),
        (-1, None),
    ],
)
def test_what_identifies_the_job_is_kept_as_text(sent: str | int | float | None, kept: str | None) -> None:
    assert normalise_batch_id(sent) == kept


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("172831", "172831", True),
        ("4711", "4711.server", True),
        ("123", "123[4]", True),
        ("123", "124", False),
        (None, "123", True),
        ("123", None, True),
        ("dwf-a-1-1", "dwf-a-1-2", False),
    ],
)
def test_the_leading_number_tells_whether_it_is_the_same_job(one: str | None, other: str | None, same: bool) -> None:
    assert same_batch_job(one, other) is same
