"""A PostgreSQL `accounts` table of the other Puffle services: adopted, then torn down from.

Each test runs on two such databases: one with text and times with a zone; one with enums, narrow
columns and times without a zone. Neither has its sessions in UTC.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from psycopg.rows import dict_row
from support import APPLIED, assert_problem, invoke

WIDE = {
    "time": "timestamptz",
    "word": "text",
    "type": "text",
    "status": "text",
    "zone": "Asia/Tokyo",
}
NARROW = {
    "time": "timestamp",
    "word": "varchar(40)",
    "type": "account_type",
    "status": "account_status",
    "zone": "America/New_York",
}
USER = "6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a"
CREATED = datetime(2026, 1, 1, 23, 30, tzinfo=timezone.utc)
TABLES = """
CREATE TYPE account_type AS ENUM ('linkedin', 'email', 'smtp');
CREATE TYPE account_status AS ENUM ('connected', 'credentials_required', 'disconnected');
CREATE TABLE accounts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL, type {type} NOT NULL,
    display_name {word}, status {status} DEFAULT 'connected', created_at {time} NOT NULL,
    updated_at {time}, provider_account_id {word} UNIQUE, profile_url {word},
    is_premium boolean DEFAULT false, has_sales_navigator boolean,
    weekly_connection_limit integer, weekly_message_limit smallint, email_address {word},
    domain_id uuid, agentmail_inbox_id {word}, instantly_account_id {word}, warmup_status {word},
    first_name {word}, last_name {word}, signature {word}, daily_limit bigint,
    instantly_tag_id uuid, instantly_warmup_tag_id uuid,
    tenant {word} NOT NULL DEFAULT 'puffle', tags text[]
);
CREATE INDEX theirs ON accounts (user_id, status);
CREATE TABLE messages (account_id uuid NOT NULL REFERENCES accounts (id), body text);
CREATE TABLE notes (account_id uuid REFERENCES accounts (id) ON DELETE SET NULL, body text);
"""
KINDS = {
    "connected": {"type": "linkedin", "provider_account_id": "acc-1", "first_name": "Ada"},
    "asking": {"type": "linkedin", "status": "credentials_required", "provider_account_id": "2"},
    "disconnected": {"type": "linkedin", "status": "disconnected", "provider_account_id": "acc-3"},
    "email": {"type": "email", "email_address": "A@b.co", "agentmail_inbox_id": "a@b.co"},
    "other": {"type": "smtp", "tags": ["x", "y"]},
}


class Theirs:
    """What was there before: an account of each kind, and messages and notes about each."""

    def __init__(self, url: str, types: dict[str, str]) -> None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self.sql(f"ALTER DATABASE {name} SET timezone TO '{types['zone']}'")
        self.sql(TABLES.format(**types))
        created = CREATED.replace(tzinfo=None) if types["time"] == "timestamp" else CREATED
        self.ids = {}
        for kind, columns in KINDS.items():
            values = {"user_id": USER, "created_at": created, **columns}
            marks = ", ".join(["%s"] * len(values))
            [row] = self.sql(
                f"INSERT INTO accounts ({', '.join(values)}) VALUES ({marks}) RETURNING id::text",
                *values.values(),
            )
            self.ids[kind] = row["id"]
            for table in ("messages", "notes"):
                self.sql(f"INSERT INTO {table} VALUES (%s, %s)", row["id"], f"about {kind}")
        self.before = self.everything()

    def sql(self, statement: str, *params: object) -> list[dict]:
        cursor = self.connection.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []

    def everything(self) -> dict[str, list[dict]]:
        """Rows, columns and indexes, but for what this service adds."""
        rows = {
            table: self.sql(f"SELECT * FROM {table} ORDER BY {order}")
            for table, order in {"accounts": "id", "messages": "body", "notes": "body"}.items()
        }
        for row in rows["accounts"]:
            row.pop("metadata", None)
        columns = self.sql(
            "SELECT table_name, column_name, udt_name, character_maximum_length, is_nullable,"
            " column_default FROM information_schema.columns WHERE column_name <> 'metadata'"
            " AND table_name IN ('accounts', 'messages', 'notes') ORDER BY 1, ordinal_position"
        )
        indexes = self.sql(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " AND tablename = 'accounts' AND indexname NOT LIKE 'puffle_%' ORDER BY 1"
        )
        return {**rows, "columns": columns, "indexes": indexes}

    def row(self, kind: str) -> dict | None:
        """Return the account's row, `None` if it is gone."""
        rows = self.sql("SELECT * FROM accounts WHERE id = %s", self.ids[kind])
        return rows[0] if rows else None


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def theirs(request, unmigrated, postgres_url, monkeypatch):
    if request.param is NARROW:
        monkeypatch.setenv("PGTZ", "Asia/Tokyo")  # of whoever starts the service
    theirs = Theirs(postgres_url, request.param)
    yield theirs
    theirs.connection.close()


@pytest.fixture
def database_url(theirs, postgres_url) -> str:
    """The database of this file's `live` and `stack`."""
    return postgres_url


@pytest.fixture
def adopted(theirs, live):
    """The same, upgraded and served, with the accounts in the hands of the stack's user."""
    theirs.sql("UPDATE accounts SET user_id = %s", live.user_id)
    theirs.before = theirs.everything()
    return theirs


def test_upgrade_loses_nothing_and_adds_metadata(theirs, postgres_url):
    for said in (APPLIED, "The tables are up to date.\n"):
        assert invoke({"DATABASE_URL": postgres_url}, "db", "upgrade").stdout == said
        assert theirs.everything() == theirs.before
    assert {row["metadata"] for row in theirs.sql("SELECT * FROM accounts")} == {None}


@pytest.mark.parametrize("kind", ["connected", "asking"])
def test_a_linkedin_account_is_disconnected_and_its_messages_stay(adopted, live, kind):
    account = adopted.row(kind)
    live.sandbox.add("unipile", account["provider_account_id"])
    answer = live.delete(adopted.ids[kind])
    assert (answer.status_code, answer.headers["Teardown-Status"]) == (200, "complete")
    assert live.sandbox.resources["unipile"] == set()
    row = adopted.row(kind)
    updated = row["updated_at"]
    if updated.tzinfo is None:  # as every reader of such a column must take it
        updated = updated.replace(tzinfo=timezone.utc)
    assert abs(datetime.now(timezone.utc) - updated) < timedelta(minutes=1)
    assert row == account | {"status": "disconnected", "updated_at": row["updated_at"]}
    after = adopted.everything()
    assert (after["messages"], after["notes"]) == (
        adopted.before["messages"],
        adopted.before["notes"],
    )


@pytest.mark.parametrize("kind", ["disconnected", "email", "other"])
def test_a_row_that_others_refer_to_stays_until_they_let_it_go(adopted, live, kind):
    assert_problem(live.delete(adopted.ids[kind]), 500, "delete_failed")
    assert adopted.everything() == adopted.before
    assert live.orphans() == []
    adopted.sql("DELETE FROM messages WHERE account_id = %s", adopted.ids[kind])
    adopted.before = adopted.everything()
    assert live.delete(adopted.ids[kind]).status_code == 200
    assert adopted.row(kind) is None
    after = adopted.everything()
    assert after["messages"] == adopted.before["messages"]
    assert [note["body"] for note in after["notes"]] == [
        note["body"] for note in adopted.before["notes"]
    ]
    assert len(after["accounts"]) == len(KINDS) - 1


def test_a_failure_is_remembered_with_the_right_moment_and_retried(adopted, live):
    live.sandbox.add("unipile", "acc-1")
    live.sandbox.behave("unipile", "fail")
    assert live.delete(adopted.ids["connected"]).headers["Teardown-Status"] == "partial"
    [orphan] = live.orphans()
    assert orphan["account"]["created_at"] == CREATED.isoformat()
    assert abs(datetime.now(timezone.utc) - orphan["created_at"]) < timedelta(minutes=1)
    live.sandbox.behave("unipile", "ok")
    retried = invoke(live.environ, "orphans", "retry")
    assert retried.stdout == "1 done, 0 superseded, 0 failed, 0 parked\n"
    assert live.sandbox.resources["unipile"] == set()


def test_an_orphan_is_superseded_by_a_live_row_of_theirs(adopted, live):
    live.sandbox.add("agentmail", "a@b.co")
    live.sandbox.behave("agentmail", "fail")
    adopted.sql("DELETE FROM messages WHERE account_id = %s", adopted.ids["email"])
    assert live.delete(adopted.ids["email"]).headers["Teardown-Status"] == "partial"
    adopted.sql(
        "INSERT INTO accounts (user_id, type, created_at, agentmail_inbox_id)"
        " VALUES (%s, 'email', now(), 'A@B.co')",
        USER,
    )
    live.sandbox.behave("agentmail", "ok")
    retried = invoke(live.environ, "orphans", "retry")
    assert retried.stdout == "0 done, 1 superseded, 0 failed, 0 parked\n"
    assert live.sandbox.resources["agentmail"] == {"a@b.co"}
