"""Tables as others made them: adopted so that they work, or refused before anything is changed."""

from __future__ import annotations

import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from support import APPLIED, invoke, plugin_of, wait_until

from puffle_accounts import database, hookimpl, live
from puffle_accounts.account import ID_COLUMNS
from puffle_accounts.database.pooled import WAIT
from puffle_accounts.database.schema import rehearsal
from puffle_accounts.errors import DeleteFailed
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.service import Service
from puffle_accounts.testing import account

COLUMNS = {
    "id": "uuid PRIMARY KEY",
    "user_id": "uuid NOT NULL",
    "type": "text NOT NULL",
    "status": "text",
    "display_name": "text",
    **dict.fromkeys(ID_COLUMNS, "text"),
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
USER = "6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a"
OTHER_USER = "7f0d8f9c-0d2b-4c58-8a1f-5f5d8f3a2b11"


def accounts(name: str = "accounts", more: str = "", **types: str) -> str:
    """Return the statement that makes the table, some columns of other types."""
    columns = ", ".join(f"{column} {type}" for column, type in {**COLUMNS, **types}.items())
    return f"CREATE TABLE {name} ({columns}{more})"


def execute(url: str, *statements: str) -> list[tuple]:
    """Execute statements as somebody else's code would; return the last one's rows."""
    if url.startswith("sqlite"):
        connecting = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    else:
        connecting = psycopg.connect(url, autocommit=True)
    with closing(connecting) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def picture(url: str) -> list[list[tuple]]:
    """Return all relations of a database, and the columns and rows of `accounts`."""
    if url.startswith("sqlite"):
        rows = execute(url, "SELECT * FROM accounts")
        return [execute(url, "SELECT * FROM sqlite_master"), rows]
    return [
        execute(url, statement)
        for statement in (
            "SELECT oid, relname FROM pg_class WHERE oid >= 16384 ORDER BY 1",
            "SELECT attrelid, attname, atttypid FROM pg_attribute WHERE attrelid >= 16384",
            "SELECT CAST(a AS text) FROM accounts a ORDER BY 1",
        )
    ]


def as_role(url: str, role: str, *grants: str) -> str:
    """Make a role that is only granted what is said; return its URL."""
    execute(url, f"CREATE ROLE {role} LOGIN", *(grant.format(role=role) for grant in grants))
    return url.replace("//postgres:@", f"//{role}@")


@pytest.fixture
def role(postgres):
    """The name of a role of the test's own; it is dropped with its database gone."""
    name = f"r{uuid.uuid4().hex[:8]}"
    yield name
    execute(postgres, f"DROP ROLE IF EXISTS {name}")


def insert(url: str, table: str = "accounts", **columns: str) -> str:
    """Insert an account of `USER`; return its id."""
    values = {"id": str(uuid.uuid4()), "user_id": USER, "status": "connected", **columns}
    listed = ", ".join(f"'{value}'" for value in values.values())
    execute(url, f"INSERT INTO {table} ({', '.join(values)}) VALUES ({listed})")
    return values["id"]


class Provider:
    """A plugin that holds what the four ids name, and is told who was torn down."""

    def __init__(self, *fields: str) -> None:
        self.seen: list[str] = []

        @hookimpl
        def teardown_account(account):
            self.seen.append(account.id)
            return "done"

        self.plugin = plugin_of(
            "crm", RESOURCE_IDS=fields or ID_COLUMNS, teardown_account=teardown_account
        )


def end(url: str, account_id: str, provider: Provider | None = None) -> list[str]:
    """End an account as a DELETE does; return the accounts that were torn down upstream."""
    store, provider = database.connect(url), provider or Provider()
    service = Service(store, Plugins((provider.plugin,)), 5)
    try:
        with store.reading():
            found = live.read(store, service.plugins.declarations, account_id, USER)
        assert found, "the account is not found"
        service.end(found)
    finally:
        store.close_all()
    return provider.seen


def users_of(url: str, **ids: str) -> set[str]:
    """Return the live accounts that use what an account with these ids names."""
    store = database.connect(url)
    with store.reading():
        found = {u.id for u in live.users(store, Provider().plugin, account(**ids))}
    store.close_all()
    return found


def upgrade(url: str):
    return invoke({"DATABASE_URL": url}, "db", "upgrade")


def said_by_check(url: str) -> list[str]:
    """Return what `check` says of the tables."""
    lines = invoke({"DATABASE_URL": url}, "check").stdout.splitlines()
    return [line.partition("schema: ")[2] for line in lines if "  schema: " in line]


# What cannot be adopted: how it is made, and what the line names

ENUM = "CREATE TYPE account_status AS ENUM ('connected', 'error')"
KEEP = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} END$$"
TRIGGER = "CREATE TRIGGER keep BEFORE {} ON accounts FOR EACH ROW EXECUTE FUNCTION keep()"
ROW = (
    "INSERT INTO accounts (id, user_id, type, status)"
    f" VALUES ('{USER}', '{USER}', 'linkedin', 'connected')"
)
POSTGRESQL = {
    "a view": (("CREATE TABLE t (id uuid)", "CREATE VIEW accounts AS SELECT * FROM t"), "a view"),
    "a materialized view": (
        ("CREATE MATERIALIZED VIEW accounts AS SELECT 1 AS id",),
        "a materialized view",
    ),
    "ids as text": ((accounts(id="text PRIMARY KEY"),), "type uuid"),
    "ids as numbers": ((accounts(id="bigserial PRIMARY KEY"),), "type uuid"),
    "users as numbers": ((accounts(user_id="bigint"),), "type uuid"),
    "an id as bytes": ((accounts(provider_account_id="bytea"),), "provider_account_id"),
    "an id as jsonb": ((accounts(agentmail_inbox_id="jsonb"),), "agentmail_inbox_id"),
    "an id as array": ((accounts(email_address="text[]"),), "email_address"),
    "an id as float": ((accounts(instantly_account_id="float8"),), "instantly_account_id"),
    "types as numbers": ((accounts(type="integer"),), "column type"),
    "states as numbers": ((accounts(status="integer DEFAULT 0"),), "column status"),
    "metadata as bytes": ((accounts(metadata="bytea"),), "metadata"),
    "times as numbers": ((accounts(updated_at="bigint"),), "updated_at"),
    "an enum": (
        (ENUM, accounts(status="account_status")),
        "ALTER TYPE account_status ADD VALUE 'disconnected'",
    ),
    "an enum elsewhere": (
        (
            "CREATE SCHEMA x",
            ENUM.replace("account_status", "x.account_status"),
            accounts(status="x.account_status"),
        ),
        "ALTER TYPE x.account_status",
    ),
    "a narrow status": ((accounts(status="varchar(8)"),), "varying(8)"),
    "a domain": (
        (
            "CREATE DOMAIN state AS text CHECK (VALUE IN ('connected', 'gone'))",
            accounts(status="state"),
        ),
        "status",
    ),
    "a constraint": (
        (accounts(status="text CONSTRAINT known CHECK (status IN ('connected', 'error'))"),),
        "constraint known",
    ),
    "a constraint of two columns": (
        (accounts(more=", CONSTRAINT pair CHECK (status = 'connected' OR type = 'email')"), ROW),
        "pair",
    ),
    "a generated status": (
        (accounts(status="text GENERATED ALWAYS AS (lower(display_name)) STORED"),),
        "generated",
    ),
    "a rule": (
        (accounts(), "CREATE RULE keep AS ON DELETE TO accounts DO INSTEAD NOTHING"),
        "rule keep",
    ),
    "a trigger that keeps rows": (
        (accounts(), KEEP.format("RETURN NULL;"), TRIGGER.format("DELETE"), ROW),
        "DELETE does not work",
    ),
    "a trigger that keeps rows, of which there are none": (
        (accounts(), KEEP.format("RETURN NULL;"), TRIGGER.format("DELETE")),
        "DELETE does not work",
    ),
    "a trigger that keeps the status": (
        (
            accounts(),
            KEEP.format("NEW.status := OLD.status; RETURN NEW;"),
            TRIGGER.format("UPDATE"),
            ROW,
        ),
        "UPDATE does not work",
    ),
    "a trigger that raises": (
        (
            accounts(),
            KEEP.format("RAISE EXCEPTION 'accounts are for ever';"),
            TRIGGER.format("DELETE"),
            ROW,
        ),
        "accounts are for ever",
    ),
    "a name that is taken": ((accounts(), "CREATE TABLE api_keys (theirs int)"), "api_keys"),
    "an index name that is taken": (
        (accounts(), "CREATE TABLE orphans_due (theirs int)"),
        "orphans_due",
    ),
}
HEX = "1c2d3e4f5a6b4c7d8e9f0a1b2c3d4e5f"
SQLITE_TABLE = accounts(**{name: "" for name in COLUMNS})
AN_ID = "INSERT INTO accounts (id, user_id, type) VALUES ({}, {}, 'email')"
SQLITE = {
    "a view": (("CREATE TABLE t (id)", "CREATE VIEW accounts AS SELECT * FROM t"), "a view"),
    "hex digits": (
        (SQLITE_TABLE, AN_ID.format(f"'{HEX}'", f"'{USER}'")),
        "column id",
    ),
    "bytes": ((SQLITE_TABLE, AN_ID.format(f"X'{HEX}'", f"'{USER}'")), "column id"),
    "upper case": ((SQLITE_TABLE, AN_ID.format(f"'{USER.upper()}'", f"'{USER}'")), "column id"),
    "users in hex digits": (
        (SQLITE_TABLE, AN_ID.format(f"'{USER}'", f"'{HEX}'")),
        "column user_id",
    ),
    "numbers": ((SQLITE_TABLE, AN_ID.format("7", f"'{USER}'")), "numbers"),
    "numbers, of which there are none": (
        (accounts(id="integer PRIMARY KEY"),),
        "column id",
    ),
    "char(32), without a row": ((accounts(id="char(32) PRIMARY KEY"),), "char(32)"),
    "a constraint": (
        (accounts(status="text CONSTRAINT known CHECK (status IN ('connected', 'error'))"),),
        "known",
    ),
    "a trigger that keeps rows": (
        (
            SQLITE_TABLE,
            "CREATE TRIGGER keep BEFORE DELETE ON accounts BEGIN SELECT RAISE(IGNORE); END",
        ),
        "DELETE does not work",
    ),
    "a trigger that keeps the status": (
        (
            SQLITE_TABLE,
            "CREATE TRIGGER keep BEFORE UPDATE ON accounts BEGIN SELECT RAISE(IGNORE); END",
            ROW,
        ),
        "UPDATE does not work",
    ),
    "a name that is taken": ((SQLITE_TABLE, "CREATE TABLE orphans (theirs)"), "orphans"),
}


def assert_refused(url: str, words: str) -> None:
    before = picture(url)
    refused = upgrade(url)
    assert (refused.exit_code, refused.stdout) == (1, ""), refused.output
    [line] = refused.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert picture(url) == before, "nothing has changed"


@pytest.mark.parametrize(("made", "words"), POSTGRESQL.values(), ids=POSTGRESQL)
def test_what_cannot_work_in_postgresql_is_refused_in_one_line(postgres_url, made, words):
    execute(postgres_url, *made)
    assert_refused(postgres_url, words)


@pytest.mark.parametrize(("made", "words"), SQLITE.values(), ids=SQLITE)
def test_what_cannot_work_in_sqlite_is_refused_in_one_line(sqlite_url, made, words):
    execute(sqlite_url, *made)
    assert_refused(sqlite_url, words)


@pytest.mark.parametrize("written", [f"'{HEX}'", f"X'{HEX}'", f"'{USER.upper()}'"])
def test_ids_in_another_spelling_work_after_what_the_refusal_says(sqlite_url, written):
    execute(sqlite_url, SQLITE_TABLE, AN_ID.format(written, f"'{USER}'"))
    said = upgrade(sqlite_url).stderr
    execute(sqlite_url, said[said.index("UPDATE accounts") : said.index(", and let")])
    assert upgrade(sqlite_url).stdout == APPLIED
    meant = str(uuid.UUID(written.strip("X'")))
    assert end(sqlite_url, meant) == []  # it names nothing
    assert execute(sqlite_url, "SELECT * FROM accounts") == []


# What is adopted

WORKS = {
    "varchar": {name: "varchar(64)" for name in ("type", "status", *ID_COLUMNS)},
    "char": {"type": "char(12)", "status": "char(20)", "provider_account_id": "char(50)"},
    "citext": {name: "citext" for name in ("type", "status", *ID_COLUMNS)},
    "uuid": {"provider_account_id": "uuid", "instantly_account_id": "uuid"},
    "numbers": {"provider_account_id": "bigint", "instantly_account_id": "numeric"},
    "enums": {"type": "kind", "status": "state"},
    "domains": {"status": "checked", "email_address": "address"},
    "jsonb": {"metadata": "jsonb"},
    "json": {"metadata": "json"},
    "text metadata": {"metadata": "text"},
    "times without a zone": {"created_at": "timestamp", "updated_at": "timestamp(0)"},
    "a check": {"status": "text CHECK (status IN ('connected', 'disconnected'))"},
}
#: What the extension of this name makes, which the tests' server does not bring along.
CITEXT = (
    "CREATE TYPE citext",
    *(
        f"CREATE FUNCTION citext{end}({takes}) RETURNS {gives}"
        f" AS 'text{end}' LANGUAGE internal IMMUTABLE STRICT"
        for end, takes, gives in (("in", "cstring", "citext"), ("out", "citext", "cstring"))
    ),
    "CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, LIKE = text, CATEGORY = 'S')",
    "CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT",
    "CREATE FUNCTION citext_eq(citext, citext) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT"
    " AS 'SELECT lower($1::text) = lower($2::text)'",
    "CREATE OPERATOR = (LEFTARG = citext, RIGHTARG = citext, FUNCTION = citext_eq)",
)
TYPES = (
    *CITEXT,
    "CREATE TYPE kind AS ENUM ('linkedin', 'email')",
    "CREATE TYPE state AS ENUM ('connected', 'disconnected')",
    "CREATE DOMAIN checked AS varchar(20) CHECK (VALUE IN ('connected', 'disconnected'))",
    "CREATE DOMAIN address AS text CHECK (VALUE LIKE '%@%')",
)
ID_OF = {"uuid": "1C2D3E4F-5A6B-4C7D-8E9F-0A1B2C3D4E5F".lower(), "numbers": "9007199254740993"}


def assert_works(url: str, provider_id: str = "Acc-1", table: str = "accounts") -> None:
    """An account is disconnected, then deleted, and found by whoever looks for its session."""
    session = insert(url, table, type="linkedin", provider_account_id=provider_id)
    other = insert(url, table, type="email", email_address="Ada@B.co")
    assert users_of(url, type="linkedin", provider_account_id=provider_id) == {session}
    assert users_of(url, type="email", email_address="aDA@b.CO") == {other}
    assert end(url, session) == [session]
    [(status,)] = execute(url, f"SELECT CAST(status AS text) FROM {table} WHERE id = '{session}'")
    assert status == "disconnected"
    assert end(url, session) == [], "it was disconnected already"
    assert end(url, other) == [other]
    assert execute(url, f"SELECT id FROM {table} WHERE id IN ('{session}', '{other}')") == []


@pytest.mark.parametrize("kind", WORKS)
def test_tables_of_many_types_are_adopted_and_torn_down_from(postgres_url, kind):
    execute(postgres_url, *TYPES, accounts(**WORKS[kind]))
    assert upgrade(postgres_url).stdout == APPLIED
    assert_works(postgres_url, ID_OF.get(kind, "Acc-1"))
    assert said_by_check(postgres_url) == ["up to date"]


def test_a_table_in_the_schema_that_a_plain_name_means_is_adopted(role, postgres_url):
    """The usual `search_path`, a schema of the role's name before that of the table."""
    service = as_role(
        postgres_url,
        role,
        "CREATE SCHEMA {role} AUTHORIZATION {role}",
        "GRANT ALL ON SCHEMA public TO {role}",
        accounts(),
        "ALTER TABLE accounts OWNER TO {role}",
    )
    assert upgrade(service).stdout == APPLIED
    assert execute(service, f"SELECT tablename FROM pg_tables WHERE schemaname = '{role}'") == []
    assert_works(service, table="public.accounts")
    assert said_by_check(service) == ["up to date"]
    assert upgrade(service).stdout == "The tables are up to date.\n"


def test_an_empty_table_before_the_one_that_is_meant_is_pointed_out(postgres_url):
    """As an upgrade of 1.0.0 could leave it."""
    execute(postgres_url, accounts(), "CREATE SCHEMA puffle", accounts("puffle.accounts"))
    url = f"{postgres_url}&options=-csearch_path%3Dpuffle,public"
    assert upgrade(url).stdout == APPLIED
    [said] = said_by_check(url)
    assert "puffle.accounts, which is empty and stands before public.accounts" in said
    insert(url, type="email")
    assert said_by_check(url) == ["up to date"]


def test_where_a_name_is_taken_our_tables_go_into_a_schema_before(postgres_url):
    execute(
        postgres_url,
        accounts(),
        "CREATE SCHEMA puffle",
        "CREATE TABLE public.api_keys (theirs int)",
    )
    url = f"{postgres_url}&options=-csearch_path%3Dpuffle,public"
    assert upgrade(url).stdout == APPLIED
    own = execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'puffle' ORDER BY 1")
    assert [name for (name,) in own] == [
        "api_keys",
        "idempotency_keys",
        "orphans",
        "puffle_accounts_migrations",
    ]
    assert_works(url)
    [said] = said_by_check(url.replace("puffle,public", "public,puffle"))
    assert "api_keys" in said
    assert "search_path" in said


def test_a_partitioned_table_is_adopted(postgres_url):
    execute(
        postgres_url,
        accounts(id="uuid", more=", PRIMARY KEY (id, user_id)") + " PARTITION BY HASH (user_id)",
        *(
            f"CREATE TABLE part{n} PARTITION OF accounts FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
            for n in range(2)
        ),
    )
    assert upgrade(postgres_url).stdout == APPLIED
    assert_works(postgres_url)
    assert said_by_check(postgres_url) == ["up to date"]


def test_a_policy_that_allows_is_no_obstacle_and_one_that_is_missing_is_named(role, postgres_url):
    execute(postgres_url, accounts(), "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY")
    assert upgrade(postgres_url).stdout == APPLIED
    service = as_role(
        postgres_url,
        role,
        "GRANT SELECT, UPDATE, DELETE ON accounts TO {role}",
        "GRANT SELECT, INSERT, UPDATE ON api_keys TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON orphans, idempotency_keys TO {role}",
        "GRANT SELECT ON puffle_accounts_migrations TO {role}",
        "CREATE POLICY reading ON accounts FOR SELECT USING (true)",
        "CREATE POLICY writing ON accounts FOR UPDATE USING (true)",
    )
    [said] = said_by_check(service)
    assert "DELETE no row of accounts" in said
    inbox = insert(postgres_url, type="email", email_address="a@b.co")
    with pytest.raises(DeleteFailed, match="did not change its row"):
        end(service, inbox, provider := Provider())
    assert provider.seen == [inbox], "the provider is asked once"
    execute(postgres_url, "CREATE POLICY deleting ON accounts FOR DELETE USING (true)")
    assert said_by_check(service) == ["up to date"]
    assert end(service, inbox) == [inbox]


SESSION = {"type": "linkedin", "provider_account_id": "s-1"}
WITHOUT_KEYS = "a plugin that compares columns"
WITH_KEYS = "a plugin that compares a key of the metadata, for which the row is locked"
MISSING = "its policy for UPDATE is missing"
FORBIDDING = "its policy for UPDATE forbids the status"


@pytest.mark.parametrize("policy", [MISSING, FORBIDDING])
@pytest.mark.parametrize("compared", [WITHOUT_KEYS, WITH_KEYS])
def test_a_session_whose_row_may_not_be_updated_is_a_failed_delete(
    role, postgres_url, policy, compared
):
    """Of a role that may do everything else; `check` names what is missing where it can be seen."""
    execute(postgres_url, accounts(), "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY")
    assert upgrade(postgres_url).stdout == APPLIED
    forbidding = "CREATE POLICY u ON accounts FOR UPDATE USING (true) WITH CHECK (status = 'on')"
    service = as_role(
        postgres_url,
        role,
        "GRANT SELECT, UPDATE, DELETE ON accounts TO {role}",
        "GRANT SELECT, INSERT, UPDATE ON api_keys TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON orphans, idempotency_keys TO {role}",
        "GRANT SELECT ON puffle_accounts_migrations TO {role}",
        "CREATE POLICY s ON accounts FOR SELECT USING (true)",
        "CREATE POLICY d ON accounts FOR DELETE USING (true)",
        *([forbidding] if policy == FORBIDDING else []),
    )
    [said] = said_by_check(service)
    assert policy == FORBIDDING or "UPDATE no row of accounts" in said
    fields = ID_COLUMNS if compared == WITHOUT_KEYS else (*ID_COLUMNS, "metadata.session")
    session, provider = insert(postgres_url, **SESSION), Provider(*fields)
    with pytest.raises(DeleteFailed) as failed:
        end(service, session, provider)
    assert provider.seen == [session], "the provider is asked once"
    assert execute(postgres_url, "SELECT status FROM accounts") == [("connected",)]
    reason = "did not change its row" if policy == MISSING else "row-level security policy"
    assert reason in f"{failed.value} {failed.value.__cause__}"


def test_check_names_each_right_that_a_role_lacks(role, postgres_url):
    execute(postgres_url, accounts())
    assert upgrade(postgres_url).stdout == APPLIED
    service = as_role(
        postgres_url,
        role,
        "GRANT SELECT, UPDATE (updated_at) ON accounts TO {role}",
        "GRANT SELECT ON api_keys, puffle_accounts_migrations, orphans TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO {role}",
    )
    said = said_by_check(service)
    assert [line.partition("GRANT ")[2] for line in said] == [
        f"{right} TO {role}"
        for right in (
            "UPDATE (status) ON accounts",
            "DELETE ON accounts",
            "INSERT ON orphans",
            "UPDATE ON orphans",
            "DELETE ON orphans",
        )
    ]


def test_rows_that_others_hold_do_not_keep_an_upgrade_waiting(postgres_url):
    execute(postgres_url, accounts(more=", metadata jsonb"))
    insert(postgres_url, type="linkedin")
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT * FROM accounts FOR UPDATE")
        store = database.connect(postgres_url)
        began = time.monotonic()
        rehearsal.changes(store)
        store.close_all()
    assert time.monotonic() - began < WAIT, "it has not waited for a lock"


# Indexes

INDEXES = """
SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 'accounts'::regclass AND c.relname LIKE 'puffle%' ORDER BY 1"""
OURS = [(f"puffle_accounts_by_{column}", True) for column in sorted(ID_COLUMNS)]
LONG = "".join(uuid.uuid4().hex for _ in range(200))  # no compression makes it short


FIGURES = """
SELECT count(DISTINCT tablename) FROM pg_stats
WHERE schemaname = 'public' AND tablename LIKE 'puffle\\_accounts\\_by\\_%'"""


def test_no_index_forbids_a_value_and_each_is_found_by_its_index(postgres_url):
    execute(postgres_url, accounts(instantly_account_id="uuid"))
    long = insert(postgres_url, type="linkedin", provider_account_id=LONG)
    assert upgrade(postgres_url).stdout == APPLIED
    assert execute(postgres_url, INDEXES) == OURS
    assert execute(postgres_url, FIGURES) == [(4,)], "a table of millions is not read whole instead"
    later = insert(postgres_url, type="email", email_address=f"{LONG}@b.co")
    execute(
        postgres_url,
        "INSERT INTO accounts (id, user_id, type, provider_account_id) SELECT gen_random_uuid(),"
        f" '{OTHER_USER}', 'linkedin', 'acc-' || n FROM generate_series(1, 20000) n",
        "ANALYZE accounts",
    )
    assert users_of(postgres_url, type="linkedin", provider_account_id=LONG) == {long}
    assert users_of(postgres_url, type="email", email_address=f"{LONG}@B.CO") == {later}
    store, plugin = database.connect(postgres_url), Provider().plugin
    spied, sql = [], store.sql
    store.sql = lambda statement, *params: (
        spied.append((statement, params)),
        sql(statement, *params),
    )[1]
    with store.reading():
        list(live.users(store, plugin, _named("acc-77", "a@b.co")))
        live.read(store, Plugins((plugin,)).declarations, long, USER)
        plans = [
            "\n".join(row[0] for row in sql(f"EXPLAIN {statement}", *params).fetchall())
            for statement, params in spied
        ]
    store.close_all()
    assert len(plans) == 5
    for plan in plans:
        assert "Seq Scan" not in plan, plan
    assert "puffle_accounts_by_email_address" in "".join(plans)


def _named(provider_account_id: str, address: str):
    ids = dict.fromkeys(("email_address", "agentmail_inbox_id", "instantly_account_id"), address)
    return account(type="email", provider_account_id=provider_account_id, **ids)


MAKING = "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()"


def test_an_interrupted_index_is_found_and_made_again(postgres_url):
    execute(postgres_url, accounts(metadata="jsonb"))
    with psycopg.connect(postgres_url) as other, ThreadPoolExecutor() as pool:
        insert(postgres_url, type="email")
        other.execute("UPDATE accounts SET display_name = 'x'")  # for which the index has to wait
        upgrading = pool.submit(upgrade, postgres_url)
        wait_until(lambda: execute(postgres_url, INDEXES))  # there, but not valid yet
        [(pid,)] = wait_until(lambda: execute(postgres_url, MAKING))
        execute(postgres_url, f"SELECT pg_terminate_backend({pid})")
        interrupted = upgrading.result()
    assert interrupted.exit_code == 1
    assert len(interrupted.stderr.splitlines()) == 1
    assert False in dict(execute(postgres_url, INDEXES)).values()
    assert upgrade(postgres_url).stdout == APPLIED.splitlines(True)[-1]
    assert execute(postgres_url, INDEXES) == OURS


def test_an_index_that_somebody_has_dropped_is_missed_and_made_again(postgres_url):
    assert upgrade(postgres_url).stdout == APPLIED
    execute(postgres_url, "DROP INDEX puffle_accounts_by_email_address")
    [said] = said_by_check(postgres_url)
    assert "puffle_accounts_by_email_address is missing" in said
    assert upgrade(postgres_url).stdout == "applied index puffle_accounts_by_email_address\n"
    assert execute(postgres_url, INDEXES) == OURS


def test_the_indexes_of_the_release_before_give_way(postgres_url):
    """They refuse values of some kilobytes, whoever writes them."""
    execute(postgres_url, accounts())
    assert upgrade(postgres_url).stdout == APPLIED
    execute(
        postgres_url,
        "DELETE FROM puffle_accounts_migrations WHERE name >= '0004'",
        *(f"DROP INDEX {name}" for name, _ in OURS),
        "CREATE INDEX puffle_accounts_provider_account_id ON accounts (provider_account_id)",
        "CREATE INDEX puffle_accounts_email_address ON accounts (lower(email_address))",
    )
    assert upgrade(postgres_url).stdout == "".join(APPLIED.splitlines(True)[3:])
    assert execute(postgres_url, INDEXES) == OURS
