"""`db upgrade` and `db status`: new databases, databases of others, and what stands in the way."""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from click.testing import Result
from commands import ForkedProgram
from support import APPLIED, MIGRATIONS, ROOT, invoke, only, run, wait_until

from puffle_accounts import clock, database
from puffle_accounts.database import schema

USER = "6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a"
OWN = {"api_keys", "orphans", "idempotency_keys", "puffle_accounts_migrations"}
UUIDS = {
    "accounts": {"id", "user_id"},
    "api_keys": {"user_id"},
    "orphans": {"id", "account_id", "user_id"},
    "idempotency_keys": {"user_id", "account_id"},
}
ACCOUNTS = """
    id user_id type display_name status created_at updated_at provider_account_id profile_url
    is_premium has_sales_navigator weekly_connection_limit weekly_message_limit email_address
    domain_id agentmail_inbox_id instantly_account_id warmup_status first_name last_name signature
    daily_limit instantly_tag_id instantly_warmup_tag_id metadata
"""
THEIRS = "id uuid, user_id uuid" + "".join(
    f", {name} text" for name in ACCOUNTS.split() if name not in ("id", "user_id", "metadata")
)
ORPHANS = """
    id plugin account_id user_id account reason attempts created_at next_attempt_at leased_until
    parked_at request_id
"""


def execute(url: str, *statements: str) -> list[tuple]:
    """Execute statements as somebody else's code would; return the last one's rows."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    else:
        connection = psycopg.connect(url)
    with connection:
        for statement in statements:
            cursor = connection.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


def tables(url: str) -> set[str]:
    store = database.connect(url)
    with store.reading():
        names = set(store.get_tables())
    store.close_all()
    return names


def db(command: str, url: str) -> Result:
    return invoke({"DATABASE_URL": url}, "db", command)


def test_upgrade_makes_the_tables_once_and_status_tells(database_url):
    before = db("status", database_url)
    assert before.exit_code == 1
    assert before.stdout.split() == [word for name in MIGRATIONS for word in (name, "pending")]
    assert tables(database_url) == set(), "status only looks"
    first, second = db("upgrade", database_url), db("upgrade", database_url)
    assert (first.exit_code, first.stdout) == (0, APPLIED)
    assert (second.exit_code, second.stdout) == (0, "The tables are up to date.\n")
    assert tables(database_url) == OWN | {"accounts"}
    after = db("status", database_url)
    assert after.exit_code == 0
    lines = [f"{name} +applied \\d{{4}}-\\d\\d-\\d\\d \\d\\d:\\d\\d\n" for name in MIGRATIONS]
    assert re.fullmatch("".join(lines), after.stdout)


def test_upgrades_at_the_same_time_wait_for_each_other(database_url):
    environ = {**os.environ, "DATABASE_URL": database_url}
    running = [ForkedProgram("puffle_accounts", ("db", "upgrade"), environ, ROOT) for _ in range(3)]
    said = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert [status for _, status in said] == [0] * 3, said
    lines = "".join(out for (out, _), _ in said).splitlines(keepends=True)
    assert sorted(line for line in lines if line.startswith("applied")) == APPLIED.splitlines(True)
    assert tables(database_url) == OWN | {"accounts"}


def test_the_tables_hold_the_columns_of_the_contract_and_uuids_as_they_should_be(stack):
    native = "uuid" if stack.database_url.startswith("postgresql") else "text"
    for table, uuids in UUIDS.items():
        with stack.database.reading():
            types = {c.name: c.data_type.lower() for c in stack.database.get_columns(table)}
        assert {types[name] for name in uuids} == {native}
        if table == "accounts":
            assert set(types) == set(ACCOUNTS.split())
        if table == "orphans":
            assert set(types) == set(ORPHANS.split())


@only("sqlite")
def test_every_uuid_in_sqlite_is_lower_case_text_with_dashes(live):
    live.sandbox.behave("unipile", "fail")
    account = live.add_linkedin()
    assert live.delete(account.upper(), Idempotency_Key="k").status_code == 200
    for table, columns in UUIDS.items():
        for column in columns:
            [(kind, value)] = execute(
                live.database_url, f"SELECT typeof({column}), {column} FROM {table}"
            )
            assert (kind, value) == ("text", str(uuid.UUID(value))), f"{table}.{column}"


@only("sqlite")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'2026-01-01T00:00:00Z'", "2026-01-01T00:00:00+00:00"),
        ("'2026-01-01 00:00:00'", "2026-01-01T00:00:00+00:00"),
        ("'2026-01-01'", "2026-01-01T00:00:00+00:00"),
        ("'2026-01-01T02:00:00.250+02:00'", "2026-01-01T00:00:00.250000+00:00"),
        ("NULL", None),
    ],
)
def test_an_account_that_other_code_wrote_into_sqlite_is_found_and_deleted(live, written, meant):
    live.sandbox.behave("agentmail", "fail")
    account = "0d9a8a52-7f0c-4f38-9d0a-5f1d7a1c9b3e"
    execute(
        live.database_url,
        "INSERT INTO accounts (id, user_id, type, agentmail_inbox_id, created_at, updated_at)"
        f" VALUES ('{account}', '{live.user_id}', 'email', 'box', {written}, {written})",
    )
    assert live.delete(account).status_code == 200
    assert live.row(account) is None
    [orphan] = live.orphans()
    assert (orphan["account"]["created_at"], orphan["account"]["updated_at"]) == (meant, meant)


@pytest.mark.parametrize("lacking", ["updated_at", "agentmail_inbox_id, status"])
def test_an_accounts_table_that_lacks_a_column_is_one_line_and_nothing_is_half_done(
    database_url, lacking
):
    store = database.connect(database_url)
    schema.upgrade(store)
    store.close_all()
    execute(
        database_url,
        *(f"DROP TABLE {table}" for table in OWN),
        "DROP INDEX IF EXISTS puffle_accounts_agentmail_inbox_id",
        *(f"ALTER TABLE accounts DROP COLUMN {column}" for column in lacking.split(", ")),
        "ALTER TABLE accounts DROP COLUMN metadata",
        f"INSERT INTO accounts (id, user_id, type) VALUES ('{USER}', '{USER}', 'email')",
    )
    row = execute(database_url, "SELECT * FROM accounts")
    refused = db("upgrade", database_url)
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: the table accounts lacks the columns {lacking}\n"
    assert tables(database_url) == {"accounts"}
    assert execute(database_url, "SELECT * FROM accounts") == row


def test_an_accounts_table_whose_ids_are_no_uuids_is_refused(postgres_url):
    execute(
        postgres_url, f"CREATE TABLE accounts ({THEIRS.replace('user_id uuid', 'user_id text')})"
    )
    refused = db("upgrade", postgres_url)
    assert refused.exit_code == 1
    said = "the columns id and user_id of the table accounts must be of type uuid"
    assert refused.stderr == f"Error: {said}\n"
    assert tables(postgres_url) == {"accounts"}


def test_a_database_that_cannot_hold_every_text_is_refused(postgres):
    name = f"latin_{uuid.uuid4().hex[:8]}"
    kind = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {kind}")
    refused = db("upgrade", postgres.replace("/postgres?", f"/{name}?"))
    assert refused.exit_code == 1
    said = "the encoding of the database must be UTF8, it is LATIN1"
    assert refused.stderr == f"Error: {said}\n"


def test_an_accounts_table_in_sqlite_is_adopted_with_its_rows_and_columns(sqlite_url):
    columns = ACCOUNTS.replace(" metadata", " extra").split()
    rows = [tuple(f"{name} {number}" for name in columns) for number in range(3)]
    execute(
        sqlite_url,
        f"CREATE TABLE accounts ({', '.join(columns)})",
        *(f"INSERT INTO accounts VALUES {row}" for row in rows),
    )
    assert db("upgrade", sqlite_url).exit_code == 0
    assert execute(sqlite_url, "SELECT * FROM accounts") == [(*row, None) for row in rows]
    assert tables(sqlite_url) == OWN | {"accounts"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("sqlite:///{path}", "{path}: unable to open database file"),
        ("sqlite:///{path}/text", "{path}/text: file is not a database"),
        ("postgresql://u:hunter2@127.0.0.1:1/db", "refused"),
        ("postgresql://u:hunter2@/db?host={path}", "No such file"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(tmp_path, where, said):
    (tmp_path / "text").write_text("This is no database.\n" * 100)
    refused = db("upgrade", where.format(path=tmp_path))
    assert (refused.exit_code, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith("Error: database: ")
    assert said.format(path=tmp_path) in line
    assert "hunter2" not in line
    assert "db upgrade" not in line, "that would not help"


def test_without_tables_a_command_says_what_to_run(database_url):
    refused = invoke({"DATABASE_URL": database_url}, "keys", "list")
    assert refused.exit_code == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith("Error: database: ")
    assert line.endswith("; run puffle-accounts db upgrade")


def test_a_role_that_may_not_migrate_gets_one_line_and_nothing_is_half_done(postgres_url):
    role = f"poor_{uuid.uuid4().hex[:8]}"
    as_role = postgres_url.replace("//postgres:@", f"//{role}@")
    execute(
        postgres_url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"CREATE TABLE accounts ({THEIRS})",
        f"GRANT ALL ON accounts TO {role}",
    )
    refused = db("upgrade", as_role)
    execute(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert refused.exit_code == 1
    said = "this role must be owner of table accounts, as postgres is: upgrade as that"
    assert refused.stderr == f"Error: {said}\n"
    assert tables(postgres_url) == {"accounts"}


@only("postgresql")
def test_the_rights_that_the_readme_grants_are_enough_for_all_but_upgrade(stack, gunicorn):
    role = f"puffle_{uuid.uuid4().hex[:8]}"
    readme = (ROOT / "README.md").read_text()
    [grants] = re.findall(r"^```sql\n(GRANT.*?)^```", readme, re.MULTILINE | re.DOTALL)
    execute(stack.database_url, f"CREATE ROLE {role} LOGIN", grants.replace("puffle;", f"{role};"))
    url = stack.environ["DATABASE_URL"].replace("//postgres:@", f"//{role}@")
    gunicorn(DATABASE_URL=url)
    stack.sandbox.behave("unipile", "fail")
    accounts = [stack.add_linkedin(), stack.add_linkedin(status="disconnected"), stack.add_email()]
    for account in accounts:
        assert stack.delete(account, Idempotency_Key=account).status_code == 200
    stack.sandbox.behave("unipile", "ok")
    for command in (
        "orphans retry",
        "orphans list",
        f"keys create {USER}",
        "keys revoke 1",
        "db status",
        "check",
    ):
        ended = stack.command(*command.split(), DATABASE_URL=url)
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    execute(stack.database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_who_holds_the_accounts_table_is_waited_for_but_not_for_ever(postgres_url):
    execute(postgres_url, f"CREATE TABLE accounts ({THEIRS})")
    with psycopg.connect(postgres_url) as reader:
        reader.execute("SELECT * FROM accounts")
        refused = db("upgrade", postgres_url)
        assert refused.exit_code == 1
        assert refused.stderr == "Error: database: canceling statement due to lock timeout\n"
        assert tables(postgres_url) == {"accounts"}
    assert db("upgrade", postgres_url).stdout == APPLIED


def test_while_the_accounts_are_indexed_others_may_read_them(postgres_url):
    with psycopg.connect(postgres_url) as writer, ThreadPoolExecutor() as pool:
        execute(postgres_url, f"CREATE TABLE accounts ({THEIRS}, metadata jsonb)")
        writer.execute("UPDATE accounts SET status = 'connected'")
        upgrade = pool.submit(run, "puffle_accounts", "db", "upgrade", DATABASE_URL=postgres_url)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        wait_until(lambda: execute(postgres_url, waiting))
        assert execute(postgres_url, "SELECT count(*) FROM accounts") == [(0,)]
        writer.rollback()
        assert upgrade.result().stdout == APPLIED


def test_the_tables_of_another_schema_are_left_alone(postgres_url):
    """A `search_path` in the URL decides where the tables are."""
    elsewhere = f"{postgres_url}&options=-csearch_path%3Dpuffle"
    execute(postgres_url, "CREATE SCHEMA puffle", "CREATE TABLE public.orphans (theirs int)")
    assert db("upgrade", elsewhere).exit_code == 0
    assert db("status", elsewhere).exit_code == 0
    assert tables(postgres_url) == {"orphans"}


def test_a_migration_is_dated_by_the_moment_it_was_applied(unmigrated, stack):
    for _, applied in schema.status(stack.database):
        assert abs((clock.now().astimezone().replace(tzinfo=None) - applied).total_seconds()) < 60
