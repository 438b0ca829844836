"""Create and migrate the tables with playhouse's migration runner."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from playhouse.migrations import Runner

from puffle_accounts.database import Database, Postgres

DIRECTORY = Path(__file__).parent / "migrations"
HISTORY = "puffle_accounts_migrations"
LOCK = 7_833_531  # any number that nobody else locks


class SchemaError(Exception):
    """The tables cannot be migrated; the message says why."""


def upgrade(database: Database) -> list[str]:
    """Apply every pending migration in one transaction; return their names.

    Raises:
        SchemaError: the `accounts` table that is there cannot be adopted.
    """
    with database.writing():
        if isinstance(database, Postgres):  # somebody else's upgrade is waited for
            database.patience = None
            database.run("SET LOCAL lock_timeout = 0")
            database.run("SELECT pg_advisory_xact_lock(?)", LOCK)
        try:
            return list(_runner(database).up())
        except ValueError as error:
            raise SchemaError(str(error)) from error


def status(database: Database) -> list[tuple[str, datetime | None]]:
    """Return every migration with the time it was applied, `None` while it is pending."""
    with database.reading():
        return [(m.name, m.applied) for m in _runner(database).status()]


def _runner(database: Database) -> Runner:
    return Runner(database, str(DIRECTORY), table_name=HISTORY)
