"""What a piece of work carries along into the threads it starts."""

from __future__ import annotations

import time
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def seconds_left(default: float) -> float:
    """Return the seconds until the deadline of the work under way.

    Args:
        default: seconds to answer where no deadline has been set.
    """
    moment = deadline.get()
    return default if moment is None else moment - time.monotonic()
