"""What the service asks of a database, whichever it is."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from peewee import PeeweeException
from playhouse.pool import MaxConnectionsExceeded

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.text import one_line

CONNECTIONS = 20  # per process; a statement takes about a millisecond, so they go round fast
WAIT = 5  # seconds: for a connection of the pool, for a lock


class Pooled:
    """What both databases offer beside Peewee's own interface.

    Statements run inside `reading`, `autocommitting` or `writing`. Each of them raises
    `DatabaseUnavailable` when the database did not answer or has no tables, and lets
    every other error of Peewee's pass: that one is the statement's or the row's fault.
    """

    IS = "IS"
    LOCK_ROW = ""  # what makes a SELECT within `writing` keep its row from others

    def folded(self, column: str) -> str:
        """Return the expression for a column as text in lower case."""
        raise NotImplementedError

    def json_text(self, column: str, key: str) -> str:
        """Return the expression for the text of a key at the top of a JSON object.

        It is NULL where there is no such key, and where the column holds no JSON at all.
        """
        raise NotImplementedError

    def sql(self, statement: str, *params: Any) -> Any:
        """Execute one statement written with `?` for values and `IS ?` to compare with NULL.

        Hand-written SQL through Peewee: building the same statement from models
        for every request halves the throughput.
        """
        return self.execute_sql(_dialect(statement, self.param, self.IS), params)  # type: ignore[attr-defined]

    def reading(self) -> AbstractContextManager[None]:
        """Hold a connection for single statements that read."""
        return self._telling_its_absence(self._connected())

    def autocommitting(self) -> AbstractContextManager[None]:
        """Hold a connection for one statement that writes; it commits by itself."""
        return self._telling_its_absence(self._connected_to_write())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a connection and a transaction for several statements."""
        with self.autocommitting(), self.atomic():  # type: ignore[attr-defined]
            yield

    @contextmanager
    def _telling_its_absence(self, connected: AbstractContextManager[Any]) -> Iterator[None]:
        try:
            with connected:
                yield
        except (PeeweeException, MaxConnectionsExceeded) as error:  # the latter is a ValueError
            if isinstance(error, PeeweeException) and not self._is_away(error):
                raise
            raise DatabaseUnavailable(one_line(error)) from error

    def _is_away(self, error: PeeweeException) -> bool:
        """Whether the database did not answer, or has no tables yet."""
        raise NotImplementedError

    def _connected(self) -> AbstractContextManager[Any]:
        """Hold a connection."""
        held: AbstractContextManager[Any] = self.connection_context()  # type: ignore[attr-defined]
        return held

    def _connected_to_write(self) -> AbstractContextManager[Any]:
        """Hold a connection that may write."""
        return self._connected()


@contextmanager
def place(bulkhead: Bulkhead) -> Iterator[None]:
    """Hold a place at the database.

    Raises:
        DatabaseUnavailable: none came free in time.
    """
    if not bulkhead.enter(time.monotonic() + WAIT):
        raise DatabaseUnavailable(f"the database was busy for {WAIT} s")
    try:
        yield
    finally:
        bulkhead.leave()


#: A key of a JSON object that may stand in a statement as it is, so that an index can be used.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]+")


@functools.lru_cache(maxsize=128)
def _dialect(statement: str, param: str, compare: str) -> str:
    return statement.replace(" IS ?", f" {compare} ?").replace("?", param)
