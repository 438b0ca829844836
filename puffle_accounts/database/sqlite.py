"""SQLite, the embedded default."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from peewee import DatabaseError, PeeweeException
from playhouse import db_url
from playhouse.pool import MaxConnectionsExceeded, PooledSqliteDatabase

from puffle_accounts import clock
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database.pooled import CONNECTIONS, PLAIN_KEY, WAIT, Pooled
from puffle_accounts.errors import ConfigError, DatabaseUnavailable

OLDEST_SQLITE = (3, 35, 0)  # RETURNING
BUSY = f"the database was busy for {WAIT} s"

#: How SQLite says that a database cannot be used now (`sqlite3_errstr`), or not yet. Python
#: tells a mistake in a statement by the same class.
REFUSALS = (
    "attempt to write a readonly database",
    "database or disk is full",
    "disk I/O error",
)
AWAY = (
    *REFUSALS,
    "unable to open database file",
    "database is locked",
    "database table is locked",
    "database disk image is malformed",
    "file is not a database",
    "locking protocol",
    "out of memory",
    "no such table",
)

GONE = (0, 0)  # no file's device and inode

_readable = functools.partial(str, encoding="utf-8", errors="replace")


class _Connection(sqlite3.Connection):
    """Knows which file it has opened: its device and inode."""

    file: tuple[int, int] | None = None


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
            factory=_Connection,
            lock_type="IMMEDIATE",  # a transaction that reads first fails at once if DEFERRED
        )
        self._writer = Bulkhead(1, WAIT)

    def _bound(self, params: tuple[Any, ...]) -> list[Any]:
        """Return the moments themselves: the database's clock is this machine's."""
        now = clock.now()
        return [clock.stamp(now + p) if isinstance(p, timedelta) else p for p in params]

    def folded(self, column: str) -> str:
        return f"lower({column})"

    def as_text(self, column: str) -> str:
        # Its bytes, since `_readable` loses some; and what is no text as it is.
        return f"iif(typeof({column}) = 'text', CAST({column} AS BLOB), {column})"

    def exactly(self, column: str) -> str:
        return f"CAST({column} AS TEXT) COLLATE BINARY"

    def indexed(self, text: str) -> str:
        return text

    def json_text(self, column: str, key: str) -> str:
        value = (
            f"json_extract({column}, '$.\"{key}\"')"
            if PLAIN_KEY.fullmatch(key)
            else f"(SELECT value FROM json_each({column}) WHERE key = {_hidden(key)})"
        )
        return f"CASE WHEN json_valid({column}) THEN CAST({value} AS TEXT) END"

    def _connect(self) -> Any:
        """Return a connection that reads text whatever its bytes are, or say which file it was."""
        try:
            conn = super()._connect()
        except sqlite3.Error as error:
            raise sqlite3.OperationalError(f"{self.database}: {error}") from error
        if conn.file is None:
            conn.file = self._file()
            conn.text_factory = _readable
        return conn

    def _is_closed(self, conn: Any) -> bool:
        """Return whether it leads nowhere: its file may be another's by now, or nobody's."""
        if not super()._is_closed(conn) and conn.file == self._file():
            return False
        conn.close()
        return True

    def _file(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.database)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextmanager
    def _connected_to_read(self) -> Iterator[None]:
        try:
            with self.connection_context():
                try:
                    yield
                except PeeweeException as error:
                    if self._is_away(error):
                        self._distrust()
                    raise
        except MaxConnectionsExceeded as error:  # a ValueError
            raise DatabaseUnavailable(BUSY) from error

    def _distrust(self) -> None:
        """Use no open connection again: what was opened read-only remains so."""
        self.connection().file = GONE
        self.close_idle()

    @contextmanager
    def _connected_to_write(self) -> Iterator[None]:
        if not self._writer.enter(time.monotonic() + WAIT):
            raise DatabaseUnavailable(BUSY)
        try:
            with self._connected_to_read():
                yield
        finally:
            self._writer.leave()

    def _is_refusal(self, error: PeeweeException) -> bool:
        return any(words in str(error) for words in REFUSALS)

    def _is_away(self, error: PeeweeException) -> bool:
        return isinstance(error, DatabaseError) and any(words in str(error) for words in AWAY)


def _hidden(text: str) -> str:
    """Return a text constant that neither ends early nor looks like a placeholder."""
    return f"CAST(X'{text.encode(errors='replace').hex()}' AS TEXT)"


def connect(url: str) -> Sqlite:
    """Return the database of a `sqlite:///` URL.

    Raises:
        ConfigError: this machine's SQLite is too old, or the folder cannot be used.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"DATABASE_URL: SQLite 3.35 or later is needed, here is {sqlite3.sqlite_version}"
        )
    path = db_url.parse(url)["database"]
    _require_folder(Path(path).absolute().parent)
    return Sqlite(path)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"DATABASE_URL: there is no folder {folder}; create it for SQLite")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"DATABASE_URL: SQLite must be able to write into the folder {folder}; permit it"
        )
