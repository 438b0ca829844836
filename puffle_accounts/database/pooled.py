"""What the service asks of a database, whichever it is."""

from __future__ import annotations

import functools
import re
import secrets
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from peewee import PeeweeException

from puffle_accounts import clock
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.text import one_line

CONNECTIONS = 20  # per process; a statement takes about a millisecond, so they go round fast
WAIT = 5  # seconds: for a connection of the pool, for a lock
SIZE = 8192  # bytes, so that it needs room of its own

# To see whether it can be written; never seen by others.
WRITE = """
INSERT INTO orphans
    (id, plugin, account_id, user_id, account, reason, attempts, created_at, next_attempt_at)
VALUES (?, '', '{nil}', '{nil}', '{{}}', ?, 0, '{then}', '{then}')""".format(
    nil=uuid.UUID(int=0), then="1970-01-01 00:00:00+00:00"
)


class Places(NamedTuple):
    """How many connections a pool has, may have, and how many wait for one."""

    used: int
    idle: int
    most: int
    waiting: int


class Pooled:
    """What both databases offer beside Peewee's own interface.

    Statements run inside `reading`, `autocommitting` or `writing`. Each of them raises
    `DatabaseUnavailable` when the database did not answer, takes no writes or has no tables,
    and lets every other error of Peewee's pass: that one is the statement's or the row's fault.
    """

    IS = "IS"
    CLOCK = "?"
    refused = False  # the last write, by a standby, a read-only or a full database
    by_way_of = ""  # what stands between the service and the database, for a person
    LOCK_ROW = ""  # what makes a SELECT within `writing` keep its row from others

    def places(self) -> Places | None:
        """Return how full the pool is, `None` where there is none yet, or never."""
        return None

    def folded(self, column: str) -> str:
        """Return the expression for a column as text in lower case."""
        raise NotImplementedError

    def table_exists(self, table_name: Any, schema: str | None = None) -> bool:
        """Return whether there is a table."""
        return bool(super().table_exists(table_name, schema))  # type: ignore[misc]

    def as_text(self, column: str) -> str:
        """Return the expression for a column that is to be read as text."""
        raise NotImplementedError

    def exactly(self, column: str) -> str:
        """Return the expression for a column as text of which every byte is compared."""
        raise NotImplementedError

    def indexed(self, text: str) -> str:
        """Return the expression for what an index holds of a text, however long that is."""
        raise NotImplementedError

    def json_text(self, column: str, key: str) -> str:
        """Return the expression for the text of a key at the top of a JSON object.

        It is NULL where there is no such key, and where the column holds no JSON at all.
        """
        raise NotImplementedError

    def sql(self, statement: str, *params: Any) -> Any:
        """Execute one statement written with `?` for values and `IS ?` to compare with NULL.

        `clock(?)` is the moment that lies so far, a `timedelta`, from the present one of the
        database's clock; NULL for `None`.

        Hand-written SQL through Peewee: building the same statement from models
        for every request halves the throughput.
        """
        text = _dialect(statement, self.param, self.IS, self.CLOCK)  # type: ignore[attr-defined]
        return self.execute_sql(text, self._bound(params))  # type: ignore[attr-defined]

    def _bound(self, params: tuple[Any, ...]) -> list[Any]:
        """Return values with each distance from the present as `CLOCK` takes it."""
        raise NotImplementedError

    def now(self) -> datetime:
        """Return the present moment by the database's clock."""
        (found,) = self.sql("SELECT clock(?)", timedelta()).fetchone()
        return cast(datetime, clock.moment(found))

    def reading(self) -> AbstractContextManager[None]:
        """Hold a connection for single statements that read."""
        return self._telling_its_absence(self._connected_to_read())

    @contextmanager
    def reading_before_change(self) -> Iterator[None]:
        """Hold a connection for the look-up that a change is to follow.

        Once a write was refused, each look-up writes first: nobody should call a provider for
        a change that cannot be made.
        """
        if self.refused:
            self.require_writes()
        with self.reading():
            yield
            self._require_writes_said()

    def require_writes(self) -> None:
        """Write a row and take it back.

        Raises:
            DatabaseUnavailable: the database takes no writes: a standby, read-only or full.
        """
        with suppress(PeeweeException), self.writing():
            self.sql(WRITE, (mark := str(uuid.uuid4())), secrets.token_hex(SIZE))
            self.sql("DELETE FROM orphans WHERE id = ?", mark)
        self.refused = False

    def autocommitting(self) -> AbstractContextManager[None]:
        """Hold a connection for one statement that writes; it commits by itself."""
        return self._telling_its_absence(self._autocommitting())

    def writing(self) -> AbstractContextManager[None]:
        """Hold a connection and a transaction for several statements."""
        return self._telling_its_absence(self._in_transaction())

    def rollback(self) -> None:
        """Roll back; where that fails, what counts is the error that made it necessary."""
        with suppress(PeeweeException):
            super().rollback()  # type: ignore[misc]

    def outside_transactions(self) -> AbstractContextManager[None]:
        """Hold a connection for statements that commit by themselves, and may not be repeated."""
        return self._telling_its_absence(self._connected_to_write())

    @contextmanager
    def _telling_its_absence(self, connected: AbstractContextManager[Any]) -> Iterator[None]:
        try:
            with connected:
                yield
        except PeeweeException as error:
            if not self._is_away(error):
                raise
            reason = one_line(error)
            if self._is_refusal(error):
                self.refused = True
                why = (
                    "takes no writes, its disk is full"
                    if self._is_full(error)
                    else "takes no writes"
                )
                reason = f"{why}: {reason}"
            raise DatabaseUnavailable(reason) from error

    def _is_away(self, error: PeeweeException) -> bool:
        """Whether the database did not answer, or has no tables yet."""
        raise NotImplementedError

    def _is_refusal(self, error: PeeweeException) -> bool:
        """Whether the database answers but takes no writes."""
        raise NotImplementedError

    def _is_full(self, error: PeeweeException) -> bool:
        """Whether the database has no room, and does not say so in this word itself."""
        return False

    def _require_writes_said(self) -> None:
        """Raise DatabaseUnavailable if the server has said by itself that it takes no writes."""

    def _connected_to_read(self) -> AbstractContextManager[Any]:
        """Hold a connection."""
        raise NotImplementedError

    def _connected_to_write(self) -> AbstractContextManager[Any]:
        """Hold a connection that may write."""
        raise NotImplementedError

    def _autocommitting(self) -> AbstractContextManager[Any]:
        """Hold a connection for one statement that writes."""
        return self._connected_to_write()

    @contextmanager
    def _in_transaction(self) -> Iterator[None]:
        with self._connected_to_write(), self.atomic():  # type: ignore[attr-defined]
            yield


#: A key of a JSON object that may stand in a statement as it is, so that an index can be used.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]+")


@functools.lru_cache(maxsize=128)
def _dialect(statement: str, param: str, compare: str, present: str) -> str:
    statement = statement.replace("clock(?)", present).replace(" IS ?", f" {compare} ?")
    return statement.replace("?", param)
