"""PostgreSQL, the database of production."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee
from peewee import InterfaceError, NotSupportedError, OperationalError, PeeweeException
from playhouse.pool import PooledPostgresqlDatabase

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database.pooled import CONNECTIONS, PLAIN_KEY, WAIT, Pooled, place
from puffle_accounts.errors import ConfigError

CONNECT_TIMEOUT = 3  # seconds
ACTIVE = 1  # libpq's PQTRANS_ACTIVE
#: How a database that cannot be reached looks, and a plan that a migration has outdated.
AWAY = (OperationalError, InterfaceError, NotSupportedError)
UNDEFINED_TABLE = "42P01"
SILENCE = 2 * WAIT  # seconds for a statement, after which PostgreSQL counts as gone


class _Adapter(peewee.Psycopg3Adapter):
    """Waits for nothing for ever, and asks nothing of the server that is known without it.

    Peewee looks whether a connection was closed by a round trip at every checkout.
    `PQconsumeInput` reads what has arrived and never waits, so that no greenlet is
    switched to while the pool's lock is held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed_at = float("-inf")

    def connect(self, db: Any, **params: Any) -> Any:
        """Return a connection that gives a server up which says nothing for `db.patience`.

        Fails at once for a second after a failed connect: the pool connects under its lock, so
        that requests which meet a silent server would wait for its connect time-out one after
        the other.
        """
        if time.monotonic() - self.failed_at < 1:
            raise OperationalError("the database refused a connection a moment ago")
        try:
            conn = super().connect(db, **params)
        except Exception:
            self.failed_at = time.monotonic()
            raise
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


class Postgres(Pooled, PooledPostgresqlDatabase):
    """PostgreSQL through psycopg 3 and Peewee's pool; libpq reads the URL."""

    IS = "IS NOT DISTINCT FROM"
    LOCK_ROW = "FOR UPDATE OF a"
    psycopg3_adapter = _Adapter

    def __init__(self, url: str, **params: Any) -> None:
        super().__init__(
            url,
            max_connections=CONNECTIONS,
            prefer_psycopg3=True,
            **params,
        )
        self.patience: float | None = SILENCE
        self._places = Bulkhead(CONNECTIONS, WAIT)

    def folded(self, column: str) -> str:
        return f"lower(CAST({column} AS TEXT))"

    def json_text(self, column: str, key: str) -> str:
        constant = f"'{key}'" if PLAIN_KEY.fullmatch(key) else _hidden(key)
        return f"puffle_accounts_value(CAST({column} AS TEXT), {constant})"

    @contextmanager
    def _connected(self) -> Iterator[None]:
        with place(self._places), self.connection_context():
            yield

    def _is_away(self, error: PeeweeException) -> bool:
        return isinstance(error, AWAY) or _sqlstate(error) == UNDEFINED_TABLE


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
        ConfigError: libpq cannot read it.
    """
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
