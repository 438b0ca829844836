"""The two databases, opened the way this service needs them."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee
from peewee import OperationalError, PeeweeException, PostgresqlDatabase, SqliteDatabase
from playhouse import db_url
from playhouse.pool import (
    MaxConnectionsExceeded,
    _PooledPostgresqlDatabase,
    _PooledSqliteDatabase,
)

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.config import ConfigError

#: What "the database did not answer" looks like. A full pool is a ValueError in Peewee.
UNAVAILABLE = (PeeweeException, MaxConnectionsExceeded)

CONNECTIONS = 20  # per process; a statement takes about a millisecond, so they go round fast
WAIT = 5  # seconds: for a connection of the pool, for a lock
CONNECT_TIMEOUT = 3  # seconds
ACTIVE = 1  # libpq's PQTRANS_ACTIVE
SILENCE = 2 * WAIT  # seconds for a statement, after which PostgreSQL counts as gone
OLDEST_SQLITE = (3, 35, 0)  # RETURNING


class _Common:
    """What both databases offer beside Peewee's own interface."""

    IS = "IS"

    def run(self, statement: str, *params: Any) -> Any:
        """Execute one statement written with `?` for values and `IS ?` to compare with NULL.

        Hand-written SQL through Peewee: building the same statement from models
        for every request halves the throughput.
        """
        return self.execute_sql(_dialect(statement, self.param, self.IS), params)  # type: ignore[attr-defined]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a connection and a transaction for several statements."""
        with self.statement(), self.atomic():  # type: ignore[attr-defined]
            yield


@contextmanager
def _place(bulkhead: Bulkhead) -> Iterator[None]:
    if not bulkhead.enter(time.monotonic() + WAIT):
        raise OperationalError(f"the database was busy for {WAIT} s")
    try:
        yield
    finally:
        bulkhead.leave()


@functools.lru_cache(maxsize=128)
def _dialect(statement: str, param: str, compare: str) -> str:
    return statement.replace(" IS ?", f" {compare} ?").replace("?", param)


class _NamingSqlite(SqliteDatabase):
    """Says which file it could not open, and reads text whatever its bytes are."""

    def _connect(self) -> Any:
        try:
            conn = super()._connect()  # type: ignore[misc]
        except sqlite3.Error as error:
            raise sqlite3.OperationalError(f"{self.database}: {error}") from error
        conn.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        return conn


class Sqlite(_Common, _PooledSqliteDatabase, _NamingSqlite):
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
    def statement(self) -> Iterator[None]:
        """Hold a connection for one statement that writes."""
        with _place(self._writer), self.connection_context():
            yield


class _Adapter(peewee.Psycopg3Adapter):
    """Waits for nothing for ever, and asks nothing of the server that is known without it.

    Peewee looks whether a connection was closed by a round trip at every checkout.
    `PQconsumeInput` reads what has arrived and never waits, so that no greenlet is
    switched to while the pool's lock is held.
    """

    def connect(self, db: Any, **params: Any) -> Any:
        """Return a connection that gives a server up which says nothing for `db.patience`."""
        conn = super().connect(db, **params)
        _read_any_time(conn)
        wait = conn.wait

        def wait_patiently(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return wait(gen, interval, timeout or db.patience)
            except conn.DatabaseError as error:
                # A statement that it still works on, or one whose plan a migration has outdated.
                if self.txn_status(conn) == ACTIVE or isinstance(error, conn.NotSupportedError):
                    conn.pgconn.finish()
                raise

        conn.wait = wait_patiently
        return conn

    def is_connection_closed(self, conn: Any) -> bool:
        try:
            conn.pgconn.consume_input()  # the server's farewell, if it said one,
            conn.pgconn.consume_input()  # and the end of the stream behind it
        except conn.OperationalError:
            return True
        return bool(conn.closed or self.txn_status(conn) != self.txn_idle)


def _read_any_time(conn: Any) -> None:
    """Read a time that Python has none for, such as `infinity`, as text."""
    from psycopg.types.datetime import TimestampLoader, TimestamptzLoader

    for name, loader in (("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader)):

        class Lenient(loader):  # type: ignore[misc, valid-type]
            def load(self, data: Any) -> Any:
                try:
                    return super().load(data)
                except conn.DataError:
                    return bytes(data).decode()

        conn.adapters.register_loader(name, Lenient)


class _ConnectingPostgres(PostgresqlDatabase):
    """Fails at once for a second after a failed connect.

    The pool connects under its lock: without this, requests that meet a silent
    server would wait for its connect time-out one after the other.
    """

    psycopg3_adapter = _Adapter
    _failed_at = float("-inf")

    def _connect(self) -> Any:
        if time.monotonic() - self._failed_at < 1:
            raise OperationalError("the database refused a connection a moment ago")
        try:
            return super()._connect()  # type: ignore[misc]
        except Exception:
            self._failed_at = time.monotonic()
            raise


class Postgres(_Common, _PooledPostgresqlDatabase, _ConnectingPostgres):
    """PostgreSQL through psycopg 3 and Peewee's pool; libpq reads the URL."""

    IS = "IS NOT DISTINCT FROM"

    def __init__(self, url: str, **params: Any) -> None:
        super().__init__(
            url,
            max_connections=CONNECTIONS,
            prefer_psycopg3=True,
            **params,
        )
        self.patience: float | None = SILENCE
        self._places = Bulkhead(CONNECTIONS, WAIT)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold a connection for single statements that read."""
        with _place(self._places), self.connection_context():
            yield

    def statement(self) -> Any:
        """Hold a connection for one statement that writes; it commits by itself."""
        return self.reading()


Database = Sqlite | Postgres


def connect(url: str) -> Database:
    """Return the database of a URL; nothing is opened yet.

    Args:
        url: `sqlite:///file` or `postgresql://…`.

    Raises:
        ConfigError: the URL or this machine's driver cannot be used.
    """
    return _sqlite(url) if url.startswith("sqlite:") else _postgres(url)


def _sqlite(url: str) -> Sqlite:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"DATABASE_URL: SQLite 3.35 or later is needed, here is {sqlite3.sqlite_version}"
        )
    return Sqlite(db_url.parse(url)["database"])


def _postgres(url: str) -> Postgres:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo

    # libpq's own defaults, PGOPTIONS and the like among them.
    given: dict[str, Any] = {
        o.keyword.decode(): o.val.decode() for o in Conninfo.get_defaults() if o.val
    }
    try:
        given |= conninfo_to_dict(url)
    except ProgrammingError:  # its message may quote the password
        raise ConfigError("DATABASE_URL is not a PostgreSQL connection URL") from None
    options = (
        f"-c lock_timeout={WAIT}s {given.get('options') or ''} -c timezone=UTC"
        r" -c default_transaction_isolation=read\ committed"  # a row may change under a reader
    )
    return Postgres(
        url,
        options=options,
        connect_timeout=given.get("connect_timeout") or CONNECT_TIMEOUT,
    )
