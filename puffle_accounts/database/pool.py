"""psycopg's pool, as this service uses it; imported where the database is PostgreSQL alone."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database.odd_times import LOADERS
from puffle_accounts.database.pooled import CONNECTIONS, WAIT, Places
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.text import one_line

CANCELLING = 1.0  # seconds to tell the server that its answer is not waited for
IDLE, LIFETIME = 60.0, 3600.0  # seconds until a connection is given back, or is too old

READ_ONLY = (b"in_hot_standby", b"default_transaction_read_only")  # reported as they change

#: The settings of a session, where it is ours alone: behind a pooler it would be the next one's.
SETTINGS = f"""
SELECT set_config(name, setting, false) FROM (VALUES
    ('timezone', 'UTC'),
    ('lock_timeout', '{WAIT}s'),
    ('default_transaction_isolation', 'read committed') -- a row may change under a reader
) AS settings (name, setting) WHERE pg_backend_pid() = %s"""

log = logging.getLogger(__name__)


class Connection(psycopg.Connection[Any]):
    """A connection that waits for nothing for ever."""

    patience: float | None = float(WAIT)  # seconds for one statement
    opened = 0.0  # on the clock of `time.monotonic()`
    is_pooled = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server, but not longer than `patience`."""
        timeout = timeout or self.patience
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.DatabaseError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self._give_up()
            raise psycopg.OperationalError(f"no answer for {timeout} s") from error

    def _give_up(self) -> None:
        """End it on both sides: what nobody waits for would keep its place at the server."""
        try:
            self.cancel_safe(timeout=CANCELLING)
        except psycopg.Error as error:
            log.debug("not cancelled: %s", error)
        self.close()

    def is_alive(self) -> bool:
        """Look, without asking the server, whether it has ended the connection."""
        try:
            self.pgconn.consume_input()  # the server's farewell, if it said one,
            self.pgconn.consume_input()  # and the end of the stream behind it
        except psycopg.OperationalError:
            self.close()
        return not self.closed

    def is_read_only(self) -> bool:
        """Return whether the server has said so by itself; a pooler only repeats what was once."""
        said = map(self.pgconn.parameter_status, READ_ONLY)
        return not self.is_pooled and b"on" in said


class _Shared(Exception):
    """What a pooler lends to others is not for keeping."""


class Pool(ConnectionPool[Connection]):
    """A pool in which nobody waits for what is known to fail, and one loss is met once.

    Behind a pooler nothing is kept: in session mode each connection keeps others from the
    server, and whoever waits for one there is served in turn. So each use has its own.

    Args:
        url: of the database, as libpq reads it.
        params: more of what libpq reads.
    """

    def __init__(self, url: str, params: dict[str, Any]) -> None:
        super().__init__(
            url,
            connection_class=Connection,
            kwargs={**params, "autocommit": True},
            min_size=0,
            max_size=CONNECTIONS,
            timeout=WAIT,
            max_idle=IDLE,
            max_lifetime=LIFETIME,
            reconnect_timeout=0,  # whoever needs a connection asks for it
            open=True,
        )
        # Who waits, waits here: to wait in psycopg's queue costs twice as much as a statement.
        self._places = Bulkhead(CONNECTIONS, WAIT)
        self._emptied = self._served = self._failed = time.monotonic()
        self._reason = ""  # of that failure
        self.is_pooled = False  # by somebody between us and the server

    def take(self) -> Connection:
        """Return a connection that the server has not ended.

        Raises:
            DatabaseUnavailable: none can be had, and why.
        """
        arrived = time.monotonic()
        if self._places.enter(arrived + WAIT):
            try:
                return self._take(arrived)
            except BaseException:
                self._places.leave()
                raise
        raise DatabaseUnavailable(f"the database was busy for {WAIT} s")

    def _take(self, arrived: float) -> Connection:
        while (left := arrived + WAIT - time.monotonic()) > 0:
            if self._failed > max(arrived, self._served):
                raise DatabaseUnavailable(self._reason)
            try:
                conn = self._for_one_use(left) if self.is_pooled else self.getconn(left)
            except PoolClosed as error:
                raise DatabaseUnavailable("its connections are closed: the process ends") from error
            except PoolTimeout:
                break
            except _Shared:
                continue
            if conn.is_alive():
                return conn
            self._give_back(conn)
        raise DatabaseUnavailable(f"the database was busy for {WAIT} s")

    def give_back(self, conn: Connection) -> None:
        """Take a connection back; one that broke takes those with it that are as old."""
        try:
            self._give_back(conn)
        finally:
            self._places.leave()

    def _give_back(self, conn: Connection) -> None:
        if not conn.closed:
            self._served = time.monotonic()
        elif conn.opened >= self._emptied:
            self._emptied = time.monotonic()
            self.drain()
        if conn.is_pooled:
            conn.close()
        else:
            self.putconn(conn)

    def in_use(self) -> int:
        """Return how many connections are taken, or being made."""
        return self.places().used

    def places(self) -> Places:
        """Return how many connections there are, and how many wait for one."""
        if self.is_pooled:
            return Places(self._places.under_way, 0, CONNECTIONS, self._places.waiting)
        stats = self.get_stats()
        idle = stats["pool_available"]
        return Places(
            used=stats["pool_size"] - idle,
            idle=idle,
            most=stats["pool_max"],
            waiting=self._places.waiting + stats["requests_waiting"],
        )

    def _connect(self, timeout: float | None = None) -> Connection:
        """Return a new connection to be kept; if there is none, tell why to those who wait."""
        conn = self._new(timeout)
        if conn.is_pooled:
            conn.close()
            self._send_away(_Shared())
            raise _Shared
        return conn

    def _for_one_use(self, timeout: float) -> Connection:
        if self.closed:
            raise PoolClosed
        try:
            return self._new(timeout)
        except psycopg.Error as error:
            raise DatabaseUnavailable(one_line(error)) from error

    def _new(self, timeout: float | None) -> Connection:
        began = time.monotonic()
        try:
            conn = super()._connect(timeout)
            if timeout:
                conn.patience = max(began + timeout - time.monotonic(), 0.001)
            self._set_up(conn)
        except Exception as error:
            if self._served < began:  # else others come back, and serve them
                self._reason, self._failed = one_line(error), time.monotonic()
                self._send_away(DatabaseUnavailable(self._reason))
            raise
        conn.patience = Connection.patience
        conn.opened = time.monotonic()
        return conn

    def _send_away(self, error: Exception) -> None:
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for client in waiting:
            client.fail(error)

    def _set_up(self, conn: Connection) -> None:
        try:
            for name, loader in LOADERS.items():
                conn.adapters.register_loader(name, loader)
            if not conn.execute(SETTINGS, [conn.info.backend_pid]).fetchall() or self.is_pooled:
                self._share(conn)
        except BaseException:
            conn.close()
            raise

    def _share(self, conn: Connection) -> None:
        """Leave nothing in a session that a pooler will lend to others."""
        conn.is_pooled = True
        conn.prepare_threshold = None
        if not self.is_pooled:
            self._require_transactions(conn)
            log.info("database.pooled")
            self.is_pooled = True

    def _require_transactions(self, conn: Connection) -> None:
        try:
            conn.execute("BEGIN")
            conn.execute("ROLLBACK")
        except psycopg.Error as error:
            raise psycopg.OperationalError(
                f"the pooler must be in session or transaction mode: {one_line(error)}"
            ) from error
