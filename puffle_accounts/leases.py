"""Leases: for how long work is kept from others, by the database's clock alone."""

from __future__ import annotations

from datetime import timedelta

from puffle_accounts.config import LONGEST_TIMEOUT

MARGIN = 10.0  # seconds beyond the teardown deadline
#: By how much a database's clock may be set back, or differ from that of the server before it.
SLACK = timedelta(minutes=1)


def length(timeout: float) -> timedelta:
    """Return how long a lease is.

    Args:
        timeout: seconds for all hooks of one request together.
    """
    return timedelta(seconds=timeout + MARGIN)


#: The longest that any machine can have written, whatever its time-out is.
LONGEST = length(LONGEST_TIMEOUT) + SLACK

#: The values for `over`.
HELD = (timedelta(), LONGEST)


def over(column: str) -> str:
    """Return the condition that a lease has run out, or that no right clock can have written it."""
    return f"{column} NOT BETWEEN clock(?) AND clock(?)"
