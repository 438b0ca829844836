"""The database: SQLite or PostgreSQL, by its URL."""

from __future__ import annotations

import logging

from peewee import PeeweeException

from puffle_accounts.database import postgres, sqlite
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.database.sqlite import Sqlite
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.text import one_line

Database = Sqlite | Postgres

log = logging.getLogger(__name__)


def connect(url: str) -> Database:
    """Return the database of a URL; nothing is opened yet.

    Args:
        url: `sqlite:///file` or `postgresql://…`.

    Raises:
        ConfigError: the URL or this machine's driver cannot be used.
    """
    return sqlite.connect(url) if url.startswith("sqlite:") else postgres.connect(url)


def report_absence(database: Database) -> None:
    """Log why the database cannot be used now; it may be later."""
    try:
        with database.reading_before_change():
            database.sql("SELECT 1 FROM accounts WHERE 1 = 0")
    except (DatabaseUnavailable, PeeweeException) as error:
        log.warning("database.unavailable", extra={"reason": one_line(error)})
