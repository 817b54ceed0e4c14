from datetime import UTC, datetime, timedelta

from DmpWorkflow.frontend.pages.timeline import NARROWEST, stays

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(status: str, minutes: float) -> dict[str, str]:
    return {"status": status, "update": (BEGIN + timedelta(minutes=minutes)).isoformat()}


def test_a_strip_shows_how_long_each_status_lasted() -> None:
    found = stays([entry("Submitted", 0), entry("Running", 25), entry("Done", 100)], BEGIN + timedelta(days=1))
    assert [(stay.status, stay.start, stay.width) for stay in found] == [
        ("Submitted", 0, 25), ("Running", 25, 75), ("Done", 100 - NARROWEST, NARROWEST),
    ]  # fmt: skip
    assert found[1].lasted == timedelta(minutes=75)


def test_what_still_runs_goes_on_until_now() -> None:
    found = stays([entry("Submitted", 0), entry("Running", 30)], BEGIN + timedelta(minutes=60))
    assert [(stay.start, stay.width) for stay in found] == [(0, 50), (50, 50)]


def test_nothing_happened() -> None:
    assert stays([], BEGIN) == []
