"""The tests' own databases: one is used again only where no more than its rows has changed."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from databases import Databases

ROW = """INSERT INTO accounts (id, user_id, type, status, created_at, updated_at)
VALUES (gen_random_uuid(), gen_random_uuid(), 'email', 'connected', now(), now())"""


@pytest.fixture(scope="module")
def of_this_file(postgres) -> Databases:
    with closing(Databases(postgres)) as databases:
        yield databases


def execute(url: str, statement: str) -> psycopg.Cursor:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement)


def test_a_database_whose_rows_have_changed_is_used_again_without_them(of_this_file):
    with of_this_file.migrated() as url:
        execute(url, ROW)
    with of_this_file.migrated() as again:
        assert again == url
        assert execute(again, "SELECT * FROM accounts").fetchall() == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE accounts ADD COLUMN more text",
        "ALTER TABLE orphans SET (fillfactor = 50)",
        "CREATE TABLE sends (account_id uuid REFERENCES accounts (id))",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT SELECT ON accounts TO PUBLIC",
        "DO 'BEGIN EXECUTE format($$ALTER DATABASE %I SET jit = off$$, current_database()); END'",
        "DELETE FROM puffle_accounts_migrations WHERE name = '0005_hashed_ids'",
        "DROP TABLE api_keys",
    ],
)
def test_a_database_of_another_shape_goes(of_this_file, change):
    with of_this_file.migrated() as url:
        execute(url, change)
    with of_this_file.migrated() as another:
        assert another != url
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        execute(url, "SELECT 1")
