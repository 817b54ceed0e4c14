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


def job_folder(root: str, title: str, job_type: str) -> PurePosixPath:
    """Return ``<root>/<title>/<type>``, where the instances of a job have theirs, ``number_as_path``.

    Raises InvalidInput for a title or type that would lead out of the root, or take another line in what a batch
    system is told.
    """
    for word in (title, job_type):
        if not word or word.startswith(".") or "/" in word or not word.isprintable():
            raise InvalidInput(
                f"{word[:40]!r} cannot name a folder: it must not be empty, begin with '.' (as our own folders there "
                "do), or contain '/' or what cannot be printed"
            )
    return PurePosixPath(root, title, job_type)
