"""Create and migrate the tables with playhouse's migration runner."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from playhouse.migrations import Runner

from puffle_accounts.database.pooled import WAIT, Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.errors import SchemaError

DIRECTORY = Path(__file__).parent / "migrations"
HISTORY = "puffle_accounts_migrations"
LOCK = 7_833_531  # any number that nobody else locks


def upgrade(database: Pooled) -> list[str]:
    """Apply every pending migration, each in a transaction of its own; return their names.

    Raises:
        SchemaError: the database or its `accounts` table cannot be adopted.
    """
    _require_unicode(database)
    runner, applied = _runner(database), []
    for migration in runner.migrations():
        with database.writing():
            if isinstance(database, Postgres):
                _wait_for_others(database)
            try:
                applied += runner.up(migration.name)
            except ValueError as error:
                raise SchemaError(str(error)) from error
    return applied


def _require_unicode(database: Pooled) -> None:
    """Refuse a database that could not store what a plugin or a provider may say."""
    if isinstance(database, Postgres):
        with database.reading():
            (encoding,) = database.sql("SHOW server_encoding").fetchone()
        if encoding != "UTF8":
            raise SchemaError(f"the encoding of the database must be UTF8, it is {encoding}")


def _wait_for_others(database: Postgres) -> None:
    """Let another upgrade end first; for `accounts` wait no longer than any other statement."""
    database.connection().patience = None
    database.sql("SET LOCAL lock_timeout = 0")
    database.sql("SELECT pg_advisory_xact_lock(?)", LOCK)
    database.sql(f"SET LOCAL lock_timeout = '{WAIT}s'")


def status(database: Pooled) -> list[tuple[str, datetime | None]]:
    """Return every migration with the time it was applied, `None` while it is pending."""
    with database.reading():
        return [(m.name, m.applied) for m in _runner(database).status()]


def _runner(database: Pooled) -> Runner:
    return Runner(database, str(DIRECTORY), table_name=HISTORY)
