"""What the service asks of a database, whichever it is."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import OperationalError

from puffle_accounts.bulkhead import Bulkhead

CONNECTIONS = 20  # per process; a statement takes about a millisecond, so they go round fast
WAIT = 5  # seconds: for a connection of the pool, for a lock


class Pooled:
    """What both databases offer beside Peewee's own interface."""

    IS = "IS"

    def sql(self, statement: str, *params: Any) -> Any:
        """Execute one statement written with `?` for values and `IS ?` to compare with NULL.

        Hand-written SQL through Peewee: building the same statement from models
        for every request halves the throughput.
        """
        return self.execute_sql(_dialect(statement, self.param, self.IS), params)  # type: ignore[attr-defined]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a connection and a transaction for several statements."""
        with self.autocommitting(), self.atomic():  # type: ignore[attr-defined]
            yield


@contextmanager
def place(bulkhead: Bulkhead) -> Iterator[None]:
    """Hold a place at the database.

    Raises:
        OperationalError: none came free in time.
    """
    if not bulkhead.enter(time.monotonic() + WAIT):
        raise OperationalError(f"the database was busy for {WAIT} s")
    try:
        yield
    finally:
        bulkhead.leave()


@functools.lru_cache(maxsize=128)
def _dialect(statement: str, param: str, compare: str) -> str:
    return statement.replace(" IS ?", f" {compare} ?").replace("?", param)
