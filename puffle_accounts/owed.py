"""Idempotency-Keys that could not be given back because the database was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from peewee import PeeweeException

from puffle_accounts.errors import DatabaseUnavailable

AGAIN = 0.25  # seconds between two attempts to give keys back


class Owed:
    """The keys to be given back once the database answers again, until their leases run out."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by token, on the clock of `time.monotonic()`
        self._lock = threading.Lock()
        self._paying = False

    def add(self, token: str, until: float) -> None:
        """Remember a key."""
        with self._lock:
            self._until[token] = until

    def pay(self, free: Callable[[str], None]) -> None:
        """Give all of them back.

        Raises:
            DatabaseUnavailable: those that are left must wait.
        """
        with self._lock:
            debts = list(self._until.items())
        for token, until in debts:
            if time.monotonic() < until:
                free(token)
            with self._lock:
                self._until.pop(token, None)

    def pay_in_background(self, free: Callable[[str], None]) -> None:
        """Try on and on, in a thread that ends with the last lease at the latest."""
        with self._lock:
            if self._paying:
                return
            self._paying = True
        thread = threading.Thread(
            target=self._pay_patiently, args=(free,), name="idempotency-free", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread left: the next claim pays
            self._paying = False

    def _pay_patiently(self, free: Callable[[str], None]) -> None:
        while True:
            with suppress(DatabaseUnavailable, PeeweeException):
                self.pay(free)
            with self._lock:
                if not self._until:
                    self._paying = False
                    return
            time.sleep(AGAIN)
