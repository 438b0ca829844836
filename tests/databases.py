"""Databases for tests: a migrated one is used again, which is three times as quick as another.

On PostgreSQL what a test leaves in its rows is taken out. Where it has changed anything else, its
database goes, and the next is copied from one that no test is given.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from puffle_accounts.database import connect, schema
from puffle_accounts.database.models import MODELS

numbers = itertools.count()

OTHERS = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""
# A quarter of the time of TRUNCATE, which makes their files anew.
EMPTY = """DELETE FROM accounts; DELETE FROM api_keys; DELETE FROM idempotency_keys;
DELETE FROM orphans; SELECT setval(pg_get_serial_sequence('api_keys', 'id'), 1, false)"""

#: Whatever could differ after a test but for rows: a change of a row of a catalogue has a new xmin.
CATALOGUES = (
    *("pg_attribute", "pg_attrdef", "pg_constraint", "pg_trigger", "pg_policy", "pg_proc"),
    *("pg_namespace", "pg_type", "pg_rewrite", "pg_extension", "pg_index", "pg_inherits"),
    *("pg_database", "pg_db_role_setting", "pg_default_acl", "pg_publication", "pg_event_trigger"),
)
# VACUUM writes the rows of pg_class itself.
TABLES = """SELECT oid, relname, relnamespace, relowner, relacl, relkind, relpersistence,
reloptions, relrowsecurity, relforcerowsecurity, relhastriggers, relhasrules FROM pg_class"""
MADE = "SELECT name FROM puffle_accounts_migrations ORDER BY name"
SHAPE = " UNION ALL ".join(
    [
        f"SELECT 'rows', md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM ({query}) t"
        for query in (TABLES, MADE)
    ]
    + [
        f"SELECT '{name}', concat(count(*), ' ', max(xmin::text::bigint)) FROM {name}"
        for name in CATALOGUES
    ]
)


class Databases:
    """The databases of one PostgreSQL server.

    Args:
        server: the URL of the database that it came with.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._template: str | None = None  # the name of one with tables
        self._migrated: list[_Migrated] = []  # those that nobody uses

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A database without tables."""
        url = self._create()
        yield url
        self._drop(url)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """A database with the service's tables, which are empty."""
        migrated = self._migrated.pop() if self._migrated else self._make()
        yield migrated.url
        if migrated.is_itself_again():
            self._migrated.append(migrated)
        else:
            migrated.close()
            self._drop(migrated.url)

    def close(self) -> None:
        """Close the connections to what nobody uses."""
        for migrated in self._migrated:
            migrated.close()

    def _make(self) -> _Migrated:
        if self._template is None:
            url = self._create()
            _migrate(url)
            self._template = _name(url)
        return _Migrated(self._create(self._template))

    def _create(self, template: str = "template1") -> str:
        name = f"t{next(numbers)}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            # half the time of a log
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self._server.replace("/postgres?", f"/{name}?")

    def _drop(self, url: str) -> None:
        name = _name(url)
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class _Migrated:
    """A database with the service's tables.

    Its connection stays, idle: a new one would have the catalogues to read, for 13 ms a test.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._shape = self._emptied()

    def is_itself_again(self) -> bool:
        """Take out all rows; return whether the rest is as it was, as far as can be told."""
        try:
            return self._emptied() == self._shape
        except psycopg.Error:  # a table is gone, or its owner; or the test ended all connections
            return False

    def close(self) -> None:
        self._connection.close()

    def _emptied(self) -> list:
        self._connection.execute(OTHERS)
        self._connection.execute(EMPTY)
        return self._connection.execute(SHAPE).fetchall()


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def migrated_sqlite(folder: Path) -> Path:
    """Make a file with the service's tables, for `copied`."""
    file = folder / "migrated.db"
    _migrate(f"sqlite:///{file}")
    return file


def copied(file: Path, copy: Path) -> str:
    """Copy it; return its URL."""
    shutil.copyfile(file, copy)
    return f"sqlite:///{copy}"


def _migrate(url: str) -> None:
    database = connect(url)
    database.bind(MODELS)
    schema.upgrade(database)
    database.close_all()
