"""Keep a hung provider within bounds of its own."""

from __future__ import annotations

import threading
import time

PATIENCE = 1.0  # seconds without any call coming back, after which nobody waits any more


class Bulkhead:
    """At most `limit` calls of one plugin under way in this process.

    A call that finds all places taken waits for one as long as calls keep coming
    back. So a burst at a healthy provider is served, and behind a hung provider
    nobody queues.

    Args:
        limit: calls under way at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._moved = time.monotonic()
        self._changed = threading.Condition()

    def enter(self, deadline: float) -> bool:
        """Take a place; return whether one came free in time.

        Args:
            deadline: when to give up in any case, in seconds of `time.monotonic()`.
        """
        with self._changed:
            arrived = time.monotonic()
            if not self._free and arrived - self._moved >= PATIENCE:
                return False
            while not self._free:
                patience = min(max(arrived, self._moved) + PATIENCE, deadline) - time.monotonic()
                if patience <= 0:
                    return False
                self._changed.wait(patience)
            self._free -= 1
            self._moved = time.monotonic()
            return True

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._free += 1
            self._moved = time.monotonic()
            self._changed.notify()
