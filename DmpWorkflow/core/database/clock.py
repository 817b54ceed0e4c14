"""The server's clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time, aware and in UTC, at the millisecond that MongoDB keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def iso(time: datetime) -> str:
    """Return an aware UTC time as ISO 8601 text with a Z."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
