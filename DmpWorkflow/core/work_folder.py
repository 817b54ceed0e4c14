"""Where an instance's files lie at a site. Pure: it names folders and makes none."""

from pathlib import PurePosixPath

from DmpWorkflow.utils.errors import InvalidInput


def number_as_path(number: int) -> PurePosixPath:
    """Return the folder of an instance number, such that no folder gets more than some 110 entries.

    Below 100: two digits. Above: one folder per magnitude, zero digits left out, then the last two digits:
    123456 -> ``1xxxxx/2xxxx/3xxx/4xx/56``, 100005 -> ``1xxxxx/05``. This is the original's layout.
    """
    if number < 0:
        raise InvalidInput(f"instance number {number} is negative")
    leading, rest = divmod(number, 100)
    digits = str(leading) if leading else ""
    folders = [digit + "x" * (len(digits) - position + 1) for position, digit in enumerate(digits) if digit != "0"]
    return PurePosixPath(*folders, f"{rest:02d}")


def work_folder(root: str, title: str, job_type: str, number: int) -> PurePosixPath:
    """Return ``<root>/<title>/<type>/<number as path>``.

    Raises InvalidInput for a title or type that would lead out of the root, or take another line in what a batch
    system is told.
    """
    for word in (title, job_type):
        if word in ("", ".", "..") or "/" in word or any(letter < " " for letter in word):
            raise InvalidInput(
                f"{word!r} cannot name a folder: it must not be empty, '.', '..' or contain '/' or line breaks"
            )
    return PurePosixPath(root, title, job_type) / number_as_path(number)
