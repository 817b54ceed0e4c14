import pytest

from DmpWorkflow.core.work_folder import job_folder, number_as_path
from DmpWorkflow.utils.errors import InvalidInput


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "00"),
        (7, "07"),
        (99, "99"),
        (100, "1xx/00"),
        (1005, "1xxx/05"),
        (1234, "1xxx/2xx/34"),
        (100005, "1xxxxx/05"),
        (123456, "1xxxxx/2xxxx/3xxx/4xx/56"),
    ],
)
def test_number_as_path(number: int, path: str) -> None:
    assert str(number_as_path(number)) == path


def test_no_two_numbers_share_a_folder_and_none_lies_in_another() -> None:
    paths = {number_as_path(number) for number in range(20_000)}
    assert len(paths) == 20_000
    assert not any(parent in paths for path in paths for parent in path.parents)


def test_job_folder() -> None:
    assert str(job_folder("/work", "rec1", "User")) == "/work/rec1/User"


@pytest.mark.parametrize("title", ["", ".", "..", "../etc", "a/b", "a\0b", "a\n#$ -l h=x", "a\rb"])
def test_a_title_cannot_lead_out_of_the_root(title: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a folder"):
        job_folder("/work", title, "User")
