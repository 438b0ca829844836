"""SQLite, the embedded default."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import DatabaseError, PeeweeException
from playhouse import db_url
from playhouse.pool import MaxConnectionsExceeded, PooledSqliteDatabase

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database.pooled import CONNECTIONS, WAIT, Pooled
from puffle_accounts.errors import ConfigError, DatabaseUnavailable

OLDEST_SQLITE = (3, 35, 0)  # RETURNING
BUSY = f"the database was busy for {WAIT} s"

#: How SQLite says that a database cannot be used now (`sqlite3_errstr`), or not yet. Python
#: tells a mistake in a statement by the same class.
AWAY = (
    "unable to open database file",
    "database is locked",
    "database table is locked",
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
    "database disk image is malformed",
    "file is not a database",
    "locking protocol",
    "out of memory",
    "no such table",
)

_readable = functools.partial(str, encoding="utf-8", errors="replace")


class Sqlite(Pooled, PooledSqliteDatabase):
    """SQLite with one writer at a time in this process.

    Under gevent SQLite's own busy handler would block every greenlet, so writers
    queue here; the busy time-out is for other processes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            path,
            max_connections=CONNECTIONS,
            timeout=WAIT,
            pragmas={
                "journal_mode": "wal",
                "synchronous": "normal",
                "foreign_keys": 1,
                "busy_timeout": WAIT * 1000,
            },
            check_same_thread=False,
            lock_type="IMMEDIATE",  # a transaction that reads first fails at once if DEFERRED
        )
        self._writer = Bulkhead(1, WAIT)

    def _connect(self) -> Any:
        """Return a connection that reads text whatever its bytes are, or say which file it was."""
        try:
            conn = super()._connect()
        except sqlite3.Error as error:
            raise sqlite3.OperationalError(f"{self.database}: {error}") from error
        conn.text_factory = _readable
        return conn

    @contextmanager
    def _connected_to_read(self) -> Iterator[None]:
        try:
            with self.connection_context():
                yield
        except MaxConnectionsExceeded as error:  # a ValueError
            raise DatabaseUnavailable(BUSY) from error

    @contextmanager
    def _connected_to_write(self) -> Iterator[None]:
        if not self._writer.enter(time.monotonic() + WAIT):
            raise DatabaseUnavailable(BUSY)
        try:
            with self._connected_to_read():
                yield
        finally:
            self._writer.leave()

    def _is_away(self, error: PeeweeException) -> bool:
        return isinstance(error, DatabaseError) and any(words in str(error) for words in AWAY)


def connect(url: str) -> Sqlite:
    """Return the database of a `sqlite:///` URL.

    Raises:
        ConfigError: this machine's SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"DATABASE_URL: SQLite 3.35 or later is needed, here is {sqlite3.sqlite_version}"
        )
    return Sqlite(db_url.parse(url)["database"])
