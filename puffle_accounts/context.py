"""What a piece of work carries along into the threads it starts."""

from __future__ import annotations

import re
import time
from contextvars import ContextVar

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def is_request_id(given: object) -> bool:
    """Whether something is the id of a request: fit for a header, whoever sent or stored it."""
    return isinstance(given, str) and _REQUEST_ID.fullmatch(given) is not None


def seconds_left(default: float) -> float:
    """Return the seconds until the deadline of the work under way.

    Args:
        default: seconds to answer where no deadline has been set.
    """
    moment = deadline.get()
    return default if moment is None else moment - time.monotonic()
