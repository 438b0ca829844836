"""Time as the tables keep it, and as the log tells it."""

from __future__ import annotations

import time
from datetime import datetime, timezone


def now() -> datetime:
    """Return the present moment, aware and in UTC."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime) -> str:
    """Return a moment as text that both databases take and that SQLite can compare."""
    return moment.astimezone(timezone.utc).isoformat(sep=" ", timespec="microseconds")


def bound(value: datetime | str) -> str:
    """Return a time as a database gave it, to be compared with there again."""
    return value if isinstance(value, str) else stamp(value)


def moment(value: datetime | str | None) -> datetime | None:
    """Return what a database gave for a time, aware and in UTC; without a zone it is UTC.

    Raises:
        ValueError: the text is not a time, or one that no calendar has in UTC.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ValueError(f"not a time: {value!r}")
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def ms_since(started: float) -> int:
    """Return the milliseconds since a moment of `time.monotonic()`."""
    return round((time.monotonic() - started) * 1000)
