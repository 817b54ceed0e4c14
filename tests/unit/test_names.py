import pytest

from DmpWorkflow.core.names import (
    LONGEST_RELEASE,
    LONGEST_TITLE,
    check_account,
    check_path,
    check_release,
    check_title,
)
from DmpWorkflow.utils.errors import InvalidInput


@pytest.mark.parametrize(
    "title", ["allElectrons-v6r0p3", "γ rays, 100 GeV", "Müller", "-n", "a" * LONGEST_TITLE, "é" * 127]
)
def test_names_of_any_language_are_good(title: str) -> None:
    check_title(title)


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("", "must be defined"),
        ("..", "names a folder"),
        (".outbox", "names a folder"),
        ("../../etc", "names a folder"),
        ("a\x7fb", "printable"),
        ("a\x9b31mb", "printable"),
        ("a\0b", "printable"),
        ("a\r\nb", "printable"),
        ("\u202egnp.exe", "turns text around"),
        ("a\u200bb", "invisible"),
        ("\u3164", "invisible"),
        ("a\ufe0f", "invisible"),
        ("\udcff", "printable"),
        ("\ufffd", "invisible"),
        ("e\u0301", "NFC"),
        (" a", "blanks"),
        ("a\u00a0", "printable"),
        ("é" * 128, "255 bytes"),
        ("a" * (LONGEST_TITLE + 1), "255 bytes"),
    ],
)
def test_names_that_mislead_or_lead_elsewhere_are_refused(title: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        check_title(title)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("release", ["../../x", "a\nb", "x" * (LONGEST_RELEASE + 1), "\x1b[2J"])
def test_releases_name_folders_as_well(release: str) -> None:
    check_release("")
    check_release("6-0-${PATCH}")
    with pytest.raises(InvalidInput, match="release"):
        check_release(release)


@pytest.mark.parametrize("name", ["", "a" * 65, "a\u202eb", "a ", "root\n"])
def test_names_of_tokens_and_users(name: str) -> None:
    check_account("a token", "alice, for the cron job at CNAF")
    with pytest.raises(InvalidInput, match="a token's name"):
        check_account("a token", name)


@pytest.mark.parametrize("path", ["/data/a\nb", "/data/\x1b[31m", "/data/\u202etoor", "\ud800"])
def test_files_may_have_any_name_that_can_be_read(path: str) -> None:
    check_path("filename", "/data/prüfung №1/e\u0301.root")
    with pytest.raises(InvalidInput, match="filename"):
        check_path("filename", path)
