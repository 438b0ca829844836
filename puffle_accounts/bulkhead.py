"""Keep what hangs within bounds of its own."""

from __future__ import annotations

import threading
import time
from collections import deque

PATIENCE = 1.0  # seconds without anybody coming back, after which nobody waits any more


class Bulkhead:
    """At most `limit` at a time in this process, and first come, first served.

    Who finds all places taken waits for one as long as others keep coming back. So a
    burst at something healthy is served, and behind something hung nobody queues. A
    place is handed to the one who has waited longest: those that merely wake a waiter
    (semaphores, conditions, Peewee's pool) let newcomers overtake it for seconds.

    Args:
        limit: places.
        patience: seconds without anybody coming back, after which to give up.
    """

    def __init__(self, limit: int, patience: float = PATIENCE) -> None:
        self.limit = limit
        self.patience = patience
        self._free = limit
        self._moved = time.monotonic()
        self._queue: deque[threading.Lock] = deque()  # each is locked until its turn
        self._lock = threading.Lock()

    def enter(self, deadline: float) -> bool:
        """Take a place; return whether one came free in time.

        Args:
            deadline: when to give up in any case, in seconds of `time.monotonic()`.
        """
        arrived = time.monotonic()
        with self._lock:
            if self._free:
                self._free -= 1
                self._moved = arrived
                return True
            if arrived - self._moved >= self.patience:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        return self._wait(turn, arrived, deadline)

    @property
    def under_way(self) -> int:
        """How many places are taken."""
        return self.limit - self._free

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    def _wait(self, turn: threading.Lock, arrived: float, deadline: float) -> bool:
        while True:
            until = min(max(arrived, self._moved) + self.patience, deadline)
            left = until - time.monotonic()
            if left > 0:
                if turn.acquire(timeout=left):
                    return True
                continue
            with self._lock:
                if turn not in self._queue:  # handed over at the last moment
                    return True
                self._queue.remove(turn)
                return False

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._moved = time.monotonic()
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1
