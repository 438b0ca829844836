"""SQLite, the embedded default."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import SqliteDatabase
from playhouse import db_url
from playhouse.pool import _PooledSqliteDatabase

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database.pooled import CONNECTIONS, WAIT, Pooled, place
from puffle_accounts.errors import ConfigError

OLDEST_SQLITE = (3, 35, 0)  # RETURNING


class _OpeningSqlite(SqliteDatabase):
    """Says which file it could not open, and reads text whatever its bytes are."""

    def _connect(self) -> Any:
        try:
            conn = super()._connect()  # type: ignore[misc]
        except sqlite3.Error as error:
            raise sqlite3.OperationalError(f"{self.database}: {error}") from error
        conn.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        return conn


class Sqlite(Pooled, _PooledSqliteDatabase, _OpeningSqlite):
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

    def reading(self) -> Any:
        """Hold a connection for single statements that read."""
        return self.connection_context()

    @contextmanager
    def autocommitting(self) -> Iterator[None]:
        """Hold a connection for one statement that writes."""
        with place(self._writer), self.connection_context():
            yield


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
