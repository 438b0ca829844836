"""How an upgrade goes about it: one at a time, for as long as it takes, each table in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from puffle_accounts.database.pooled import WAIT, Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.text import one_line

if TYPE_CHECKING:
    from puffle_accounts.database.pool import Connection

LOCK = 7_833_531  # any number that nobody else locks
PAUSE = 0.2  # seconds
IN_PLACE = """
SELECT set_config('search_path',
    concat_ws(', ', quote_ident(?), nullif(current_setting('search_path'), '')), true)"""


@contextmanager
def alone(database: Pooled) -> Iterator[None]:
    """Let another upgrade end first; SQLite's transactions see to that by themselves."""
    if not isinstance(database, Postgres):
        yield
        return
    import psycopg

    # By a transaction that does nothing else: it holds its lock behind a pooler too, and an index
    # that is made CONCURRENTLY does not wait for it. For one that waits for the lock it would.
    conn = database.pool.take()
    try:
        while not _has_locked(conn):
            time.sleep(PAUSE)
    except psycopg.Error as error:
        conn.close()
        database.pool.give_back(conn)
        raise DatabaseUnavailable(one_line(error)) from error
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            conn.execute("ROLLBACK")
        database.pool.give_back(conn)


def _has_locked(conn: Connection) -> bool:
    """Begin a transaction with the lock; in vain, none: behind a pooler it holds a connection."""
    conn.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
    # Without a parameter: one would leave a portal open, and so a snapshot to wait for.
    if conn.execute(f"SELECT pg_try_advisory_xact_lock({LOCK})").fetchone() == (True,):
        return True
    conn.execute("ROLLBACK")
    return False


@contextmanager
def in_transaction(database: Pooled, schema: str | None) -> Iterator[None]:
    """Hold a transaction in which new tables are made in a schema; for a lock it does not wait."""
    with database.writing():
        if isinstance(database, Postgres):
            database.connection().patience = None
            if schema is not None:
                database.sql(IN_PLACE, schema)
        yield


@contextmanager
def unhurried(database: Postgres) -> Iterator[None]:
    """Hold a connection without a transaction, for what waits for others and keeps none waiting."""
    with database.outside_transactions():
        conn = database.connection()
        conn.patience = None
        if conn.is_pooled:
            yield
            return
        database.sql("SET lock_timeout = 0")
        try:
            yield
        finally:
            if not conn.closed:
                database.sql(f"SET lock_timeout = '{WAIT}s'")
