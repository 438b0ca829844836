"""PostgreSQL, the database of production: Peewee's side of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from peewee import (
    InterfaceError,
    NotSupportedError,
    OperationalError,
    PeeweeException,
    PostgresqlDatabase,
)

from puffle_accounts.database import postgres_url
from puffle_accounts.database.pooled import PLAIN_KEY, WAIT, Places, Pooled
from puffle_accounts.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from puffle_accounts.database.pool import Connection, Pool

SILENCE = 2.0 * WAIT  # seconds for a statement, after which PostgreSQL counts as gone
CLOSING = 0.5  # seconds for each thread of the pool to end
#: How a database that cannot be reached looks, and a plan that a migration has outdated.
AWAY = (OperationalError, InterfaceError, NotSupportedError)
UNDEFINED_TABLE, READ_ONLY, DISK_FULL = "42P01", "25006", "53100"
SCHEMA_OF = """
SELECT CAST(n.nspname AS TEXT) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%s)"""
BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    f" SET LOCAL lock_timeout = '{WAIT}s'; SET LOCAL timezone = 'UTC'"
)


class _Held(threading.local):
    """What a thread, or greenlet, has of the pool."""

    conn: Connection | None = None
    pool: Pool
    repeatable = False  # what is being done with it


class Postgres(Pooled, PostgresqlDatabase):
    """PostgreSQL through psycopg 3 and its pool; libpq reads the URL.

    Peewee holds its own lock while it connects and while it closes, so that a connection is
    taken from the pool before the one and given back after the other.
    """

    IS = "IS NOT DISTINCT FROM"
    # Not now(): a transaction may have waited. Not clock_timestamp(): no index would be used.
    CLOCK = "(statement_timestamp() + make_interval(secs => ?))"
    LOCK_ROW = "FOR UPDATE OF a"

    def __init__(self, url: str, params: dict[str, Any]) -> None:
        super().__init__(url, prefer_psycopg3=True, autoconnect=False)
        self.patience = SILENCE
        self._params = params
        self._held = _Held()
        self._opening = threading.Lock()
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """The pool of this process, opened when it is first needed: it has threads."""
        return self._pool or self._open_pool()

    def _open_pool(self) -> Pool:
        from puffle_accounts.database.pool import Pool

        with self._opening:
            if self._pool is None:
                self._pool = Pool(self.database, self._params)
                self._close_pool = weakref.finalize(self, self._pool.close, CLOSING)
            return self._pool

    @property
    def by_way_of(self) -> str:  # type: ignore[override]
        """What stands between the service and the database, for a person."""
        return ", through a pooler" if self.pool.is_pooled else ""

    def close_all(self) -> None:
        """Close every connection, and end the threads; whoever comes next opens a new pool."""
        with self._opening:
            if self._pool is not None:
                self._close_pool()
                self._pool = None

    def _bound(self, params: tuple[Any, ...]) -> list[Any]:
        return [p.total_seconds() if isinstance(p, timedelta) else p for p in params]

    def places(self) -> Places | None:
        pool = self._pool
        return pool.places() if pool else None

    def folded(self, column: str) -> str:
        return f"lower(CAST({column} AS TEXT))"

    def schema_of(self, table: str) -> str | None:
        """Return where the table is that a plain name means, `None` if there is none."""
        row = self.execute_sql(SCHEMA_OF, (table,)).fetchone()
        return None if row is None else str(row[0])

    def table_exists(self, table_name: Any, schema: str | None = None) -> bool:
        """Return whether there is a table; without a schema, what a plain name means."""
        if isinstance(table_name, str) and schema is None:
            return self.schema_of(table_name) is not None
        return bool(super().table_exists(table_name, schema))

    def get_columns(self, table: str, schema: str | None = None) -> Any:
        """Return the columns of a table; without a schema, of what a plain name means."""
        return super().get_columns(table, schema or self.schema_of(table))

    def as_text(self, column: str) -> str:
        return f"CAST({column} AS TEXT)"  # without what pads a `char(n)`

    def exactly(self, column: str) -> str:
        return f'CAST({column} AS TEXT) COLLATE "C"'  # `citext` and some collations fold

    def indexed(self, text: str) -> str:
        return f'hashtextextended({text} COLLATE "C", 0)'  # an index refuses 3 kB of text itself

    def json_text(self, column: str, key: str) -> str:
        constant = f"'{key}'" if PLAIN_KEY.fullmatch(key) else _hidden(key)
        return f"puffle_accounts_value(CAST({column} AS TEXT), {constant})"

    @contextmanager
    def _connected_to_read(self) -> Iterator[None]:
        with self._connected_to_write():
            before, self._held.repeatable = self._held.repeatable, not self.in_transaction()
            try:
                yield
            finally:
                self._held.repeatable = before

    @contextmanager
    def _autocommitting(self) -> Iterator[None]:
        """Hold a connection; behind a pooler the settings of one statement need a transaction."""
        with self._connected_to_write(), self.atomic() if self.is_pooled() else nullcontext():
            yield

    def is_pooled(self) -> bool:
        """Return whether a pooler stands between the connection held and the server."""
        pooled: bool = self.connection().is_pooled
        return pooled

    def begin(self, isolation_level: Any = None) -> None:
        """Begin a transaction; behind a pooler it says itself what the session says elsewhere."""
        if self.is_pooled():
            self.execute_sql(BEGIN)
        else:
            super().begin(isolation_level)

    @contextmanager
    def _connected_to_write(self) -> Iterator[None]:
        if not self.is_closed():  # within another
            yield
            return
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def _take(self) -> None:
        pool = self.pool
        conn = pool.take()
        conn.patience = self.patience
        self._held.conn, self._held.pool = conn, pool
        self.connect()

    def _give_back(self) -> None:
        held = self._held
        conn, held.conn = held.conn, None
        try:
            self.close()
        finally:
            if conn is not None:  # None where the one to follow a broken one could not be had
                held.pool.give_back(conn)

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement; what only reads is read again where the connection was to blame."""
        try:
            return super().execute_sql(sql, params)
        except PeeweeException as error:
            if not self._is_to_blame(error):
                raise
        self._give_back()
        self._take()
        return super().execute_sql(sql, params)

    def _is_to_blame(self, error: PeeweeException) -> bool:
        """Whether the connection will not do; if so it is closed."""
        conn, repeatable = self._held.conn, self._held.repeatable
        if conn is None:
            return False
        # A plan that a migration has outdated; a server that another may have taken over from.
        if isinstance(error, NotSupportedError) or _sqlstate(error) == READ_ONLY:
            conn.close()
        return repeatable and conn.closed

    def _connect(self) -> Connection:
        if self._held.conn is None:
            raise InterfaceError("statements belong into reading, autocommitting or writing")
        return self._held.conn

    def _close(self, conn: Connection) -> None:
        """Leave it open: it belongs to the pool."""

    def _is_away(self, error: PeeweeException) -> bool:
        return isinstance(error, AWAY) or _sqlstate(error) in (UNDEFINED_TABLE, READ_ONLY)

    def _is_refusal(self, error: PeeweeException) -> bool:
        return _sqlstate(error) in (READ_ONLY, DISK_FULL)

    def _is_full(self, error: PeeweeException) -> bool:
        return _sqlstate(error) == DISK_FULL

    def _require_writes_said(self) -> None:
        conn = self._held.conn
        if conn is not None and conn.is_read_only():
            conn.close()  # the next one may lead to another server
            raise DatabaseUnavailable("takes no writes: the server is a standby or read-only")


def _hidden(text: str) -> str:
    """Return a text constant that neither ends early nor looks like a placeholder."""
    return f"convert_from(decode('{text.encode(errors='replace').hex()}', 'hex'), 'UTF8')"


def _sqlstate(error: Any) -> str | None:
    """Return the server's code of an error that Peewee has wrapped, perhaps several times."""
    while isinstance(error, PeeweeException):
        error = getattr(error, "orig", None)
    return getattr(error, "sqlstate", None)


def connect(url: str) -> Postgres:
    """Return the database of a `postgresql://` URL.

    Raises:
        ConfigError: libpq cannot use it, whatever becomes of the server.
    """
    return Postgres(url, postgres_url.parameters(url))
