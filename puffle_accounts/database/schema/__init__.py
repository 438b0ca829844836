"""Create and migrate the tables with playhouse's migration runner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from playhouse.migrations import Migration, Runner

from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.database.schema import indexes, obstacles, place, rehearsal, upgrading
from puffle_accounts.errors import SchemaError
from puffle_accounts.text import counted

DIRECTORY = Path(__file__).parents[1] / "migrations"


class Versions(NamedTuple):
    """How the tables compare with this code: the migrations that only one of the two knows."""

    pending: list[str]
    unknown: list[str]

    @property
    def said(self) -> str:
        """Whether the tables are older, current or newer, and what to do, for a person."""
        if self.pending:
            count = counted(len(self.pending), "pending migration")
            return f"older than this code, {count}: run puffle-accounts db upgrade"
        if self.unknown:
            return f"newer than this code, by {', '.join(self.unknown)}: it serves this code too"
        return "up to date"


def upgrade(database: Pooled) -> list[str]:
    """Apply every pending migration; return the names of what was made.

    What can be known to stand in the way is looked for before anything is changed.

    Raises:
        SchemaError: the database or its `accounts` table cannot be adopted.
    """
    _require_unicode(database)
    with upgrading.alone(database):
        with database.reading():
            schema = place.own(database)
            runner = _runner(database, schema)
            pending = [m for m in runner.status() if m.path and not m.applied]
            lacking, adopted = indexes.lacking(database), database.table_exists("accounts")
        if pending or lacking:
            for obstacle in obstacles.to_upgrade(database):
                raise SchemaError(obstacle)
        if pending:
            rehearsal.migrations(database, lambda: _rehearsed(runner, pending), schema)
            if adopted:
                rehearsal.changes(database)
        applied = [name for each in pending for name in _apply(database, runner, each, schema)]
        return applied or _repair(database, lacking)


def _is_atomic(migration: Migration) -> bool:
    return getattr(migration.load(), "atomic", True)


def _rehearsed(runner: Runner, pending: list[Migration]) -> None:
    for migration in takewhile(_is_atomic, pending):
        runner.up(migration.name)


def _apply(database: Pooled, runner: Runner, migration: Migration, schema: str | None) -> list[str]:
    if isinstance(database, Postgres) and not _is_atomic(migration):
        with upgrading.unhurried(database):
            return list(runner.up(migration.name))
    with upgrading.in_transaction(database, schema):
        return list(runner.up(migration.name))


def _repair(database: Pooled, lacking: list[str]) -> list[str]:
    if not lacking or not isinstance(database, Postgres):
        return []
    with upgrading.unhurried(database):
        return [f"index {name}" for name in indexes.ensure(database)]


def _require_unicode(database: Pooled) -> None:
    """Refuse a database that could not store what a plugin or a provider may say."""
    if isinstance(database, Postgres):
        with database.reading():
            (encoding,) = database.sql("SHOW server_encoding").fetchone()
        if encoding != "UTF8":
            raise SchemaError(f"the encoding of the database must be UTF8, it is {encoding}")


def status(database: Pooled) -> list[tuple[str, datetime | None]]:
    """Return every migration with the time it was applied, `None` while it is pending."""
    with database.reading():
        return [(m.name, m.applied) for m in _found(database).status()]


def versions(database: Pooled) -> Versions:
    """Return how the tables compare with this code."""
    with database.reading():
        found = _found(database).status()
    return Versions(
        pending=[m.name for m in found if not m.applied],
        unknown=[m.name for m in found if not m.path],
    )


def flaws(database: Pooled) -> Iterator[str]:
    """Return why accounts could not be ended in the tables that are there, a line each."""
    found = versions(database)
    if found.pending:
        yield found.said
    standing = list(obstacles.to_serve(database, is_migrated=not found.pending))
    yield from standing
    if not found.pending and not standing:
        yield from _misplaced(database)
        with database.reading():
            lacking = indexes.lacking(database)
        for name in lacking:
            yield f"the index {name} is missing or not finished: run puffle-accounts db upgrade"


def _misplaced(database: Pooled) -> Iterator[str]:
    try:
        with database.reading():
            place.own(database)
            hidden = place.hidden(database) if isinstance(database, Postgres) else None
    except SchemaError as error:
        hidden = str(error)
    if hidden:
        yield hidden


def _found(database: Pooled) -> Runner:
    schema = database.schema_of(place.HISTORY) if isinstance(database, Postgres) else None
    return _runner(database, schema)


def _runner(database: Pooled, schema: str | None) -> Runner:
    return Runner(database, str(DIRECTORY), table_name=place.HISTORY, schema=schema)
