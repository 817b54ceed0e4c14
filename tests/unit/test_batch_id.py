import pytest

from DmpWorkflow.core.batch_id import normalise_batch_id


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
