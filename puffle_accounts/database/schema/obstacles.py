"""What stands in the way of adopting an `accounts` table, on either database."""

from __future__ import annotations

from collections.abc import Iterator

from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.database.schema import postgres, rights, sqlite
from puffle_accounts.database.sqlite import Sqlite


def to_serve(database: Pooled, is_migrated: bool) -> Iterator[str]:
    """Return why this role could not end accounts in the tables that are there, a line each."""
    with database.reading():
        if isinstance(database, Sqlite):
            yield from sqlite.obstacles(database)
        elif isinstance(database, Postgres):
            found = postgres.table(database)
            if found:
                yield from postgres.obstacles(database, found)
                yield from rights.lacking(database, found.role) if is_migrated else ()


def to_upgrade(database: Pooled) -> Iterator[str]:
    """Return why this role could not adopt or migrate the `accounts` table, a line each."""
    with database.reading():
        if isinstance(database, Sqlite):
            yield from sqlite.obstacles(database)
        elif isinstance(database, Postgres):
            found = postgres.table(database)
            if found:
                yield from postgres.obstacles(database, found)
                yield from postgres.rights_to_change(found)
