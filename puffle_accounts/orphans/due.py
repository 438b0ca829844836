"""When it is an orphan's turn, by the database's clock, and which times cannot be genuine."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from puffle_accounts import leases
from puffle_accounts.teardown import Outcome

MINUTE = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=24)
LONGEST_RETRY_AFTER = timedelta(days=7)
MOST_ATTEMPTS = 10


class Turn(NamedTuple):
    """Orphans that are tried in the order of a time.

    Args:
        which: the condition for them.
        since: the column that says from when on they may be tried.
        furthest: how far ahead that time can be; what is further ahead, a wrong clock has
            written, and it counts as over.
    """

    which: str
    since: str
    furthest: timedelta


WAITING = Turn("parked_at IS NULL", "next_attempt_at", LONGEST_RETRY_AFTER + leases.SLACK)
PARKED = Turn("parked_at IS NOT NULL", "parked_at", leases.SLACK)


def asked(failure: Outcome) -> timedelta:
    """Return how long a provider asked to be left alone, as far as it is heeded."""
    longest = LONGEST_RETRY_AFTER.total_seconds()
    return timedelta(seconds=min(failure.retry_after, longest))


def pause(
    attempts: int, failure: Outcome, jitter: Callable[[float, float], float] = random.uniform
) -> timedelta:
    """Return how long an orphan is put off that has failed so often.

    Args:
        jitter: returns a random number from the first to the second argument.
    """
    most = min(LONGEST_BACKOFF, MINUTE * 2 ** min(attempts, 20))
    backoff = timedelta(seconds=jitter(MINUTE.total_seconds(), most.total_seconds()))
    return max(backoff, asked(failure))
