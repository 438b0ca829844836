"""How long a provider asks to be left alone."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from puffle_accounts import clock
from puffle_accounts.transport import Answer

SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
DATE = re.compile(r"[a-z]{3,9},? ", re.IGNORECASE)  # begins with a day of the week
EPOCH = 1e9  # what is more is a moment (after 2001), what is less are seconds from now
FARTHEST = 7 * 86400.0  # seconds; beyond it, it was no time in seconds


def asked_for(answer: Answer, in_body: Any) -> float | None:
    """Return the seconds to wait, `None` where none are told.

    `Retry-After` is made for it. Else what the body says; else, if the limit of requests is the
    reason, when that is lifted.

    Args:
        in_body: what the body says, if that is known to say so.
    """
    found = after(answer.header("retry-after"), _present(answer))
    if found is None:
        found = _seconds(in_body)
    if found is None and answer.status == 429:
        found = _reset(answer.header("x-ratelimit-reset"), _present(answer))
    return found


def _present(answer: Answer) -> datetime:
    """Return the present by the clock that names the moments: the provider's, if it tells it."""
    return _date(answer.header("date")) or clock.now()


def after(value: str, present: datetime) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a date (RFC 9110 §10.2.3).

    `None` is for what cannot be read: it backs off, for nobody said "now".
    """
    if SECONDS.fullmatch(value):
        return float(value)
    date = _date(value)
    return None if date is None else max((date - present).total_seconds(), 0.0)


def _date(value: str) -> datetime | None:
    if not DATE.match(value):
        return None
    try:
        return parsedate_to_datetime(value).replace(tzinfo=timezone.utc)  # by definition
    except (ValueError, TypeError, OverflowError):
        return None


def _reset(value: str, present: datetime) -> float | None:
    """Return the seconds of an X-RateLimit-Reset, which no standard defines.

    Smartlead and SendGrid give a Unix time, Unipile v2 seconds from now.
    """
    seconds = _seconds(value)
    if seconds is None:
        return None
    left = seconds if seconds < EPOCH else max(seconds - present.timestamp(), 0.0)
    return left if left <= FARTHEST else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if SECONDS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None
