"""The database: SQLite or PostgreSQL, by its URL."""

from __future__ import annotations

from puffle_accounts.database import postgres, sqlite
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.database.sqlite import Sqlite

Database = Sqlite | Postgres


def connect(url: str) -> Database:
    """Return the database of a URL; nothing is opened yet.

    Args:
        url: `sqlite:///file` or `postgresql://…`.

    Raises:
        ConfigError: the URL or this machine's driver cannot be used.
    """
    return sqlite.connect(url) if url.startswith("sqlite:") else postgres.connect(url)
