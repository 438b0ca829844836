"""A schema that is older, current or newer than the code, and the code of the release before."""

from __future__ import annotations

import json
import uuid

import pytest
from support import APPLIED, MIGRATIONS, invoke

from puffle_accounts import database
from puffle_accounts.database import schema

NEWER = "9999_of_a_later_release"
ACCOUNT, USER, ORPHAN = (str(uuid.UUID(int=n, version=4)) for n in (1, 2, 3))
BEFORE, AFTER = "2026-01-01 00:00:00.000000+00:00", "2026-02-01 00:00:00.000000+00:00"
SELECTED = (
    "a.id, a.user_id, a.type, a.status, a.display_name, a.provider_account_id, a.email_address,"
    " a.agentmail_inbox_id, a.instantly_account_id, CAST(a.metadata AS TEXT), a.created_at,"
    " a.updated_at"
)
UNCHANGED = (
    "id = ? AND user_id = ? AND status IS ? AND provider_account_id IS ?"
    " AND email_address IS ? AND agentmail_inbox_id IS ? AND instantly_account_id IS ?"
)
ROW = (ACCOUNT, USER, "connected", "acc-1", None, None, None)
DUE = "parked_at IS NULL AND next_attempt_at <= ?"
CLAIM = """
WITH next AS (
    SELECT id FROM orphans
    WHERE plugin = ? AND {which} AND (leased_until IS NULL OR leased_until <= ?)
    ORDER BY next_attempt_at LIMIT ? {lock}
)
UPDATE orphans SET leased_until = ? WHERE id IN (SELECT id FROM next)
RETURNING id, plugin, account_id, user_id, CAST(account AS TEXT), attempts, parked_at, request_id"""
#: Of 1.0.0, in the order in which its service, its retrier and its commands run them.
RELEASED = (
    (
        "INSERT INTO api_keys (user_id, name, prefix, sha256, created_at) VALUES (?, ?, ?, ?, ?)",
        (USER, "n", "pk_live_", "digest", BEFORE),
    ),
    (
        f"SELECT k.user_id, {SELECTED} FROM api_keys k"
        " LEFT JOIN accounts a ON a.id = ? AND a.user_id = k.user_id"
        " WHERE k.sha256 = ? AND k.revoked_at IS NULL",
        (ACCOUNT, "digest"),
    ),
    (
        "INSERT INTO idempotency_keys (user_id, key, account_id, token, leased_until)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, key) DO UPDATE SET"
        " account_id = excluded.account_id, token = excluded.token,"
        " leased_until = excluded.leased_until, finished_at = NULL, teardown_status = NULL"
        " WHERE (idempotency_keys.finished_at IS NULL AND idempotency_keys.leased_until <= ?)"
        " OR idempotency_keys.finished_at <= ?",
        (USER, "k", ACCOUNT, "token", BEFORE, BEFORE, BEFORE),
    ),
    (
        "SELECT account_id, token, finished_at, teardown_status FROM idempotency_keys"
        " WHERE user_id = ? AND key = ?",
        (USER, "k"),
    ),
    (f"SELECT {SELECTED} FROM accounts a WHERE a.id = ? AND a.user_id = ?", (ACCOUNT, USER)),
    (
        f"UPDATE accounts SET status = 'disconnected', updated_at = ? WHERE {UNCHANGED}",
        (BEFORE, *ROW),
    ),
    (
        "INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,"
        " created_at, next_attempt_at, parked_at, request_id)"
        " VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " account = excluded.account, reason = excluded.reason,"
        " attempts = orphans.attempts + 1,"
        " parked_at = COALESCE(orphans.parked_at, excluded.parked_at)",
        (ORPHAN, "unipile", ACCOUNT, USER, json.dumps({}), "r", BEFORE, BEFORE, None, "id"),
    ),
    (
        "UPDATE idempotency_keys SET finished_at = ?, teardown_status = ? WHERE token = ?",
        (BEFORE, "partial", "token"),
    ),
    (CLAIM, ("unipile", AFTER, AFTER, 8, AFTER)),
    (f"SELECT count(*) FROM orphans WHERE plugin = ? AND {DUE}", ("unipile", AFTER)),
    (
        "SELECT 1 FROM (SELECT 1) one WHERE NOT EXISTS (SELECT 1 FROM accounts"
        " WHERE NOT (type = 'linkedin' AND status IS ?) AND (provider_account_id = ?"
        " OR lower(email_address) IN (lower(?)) OR lower(agentmail_inbox_id) IN (lower(?))"
        " OR lower(instantly_account_id) IN (lower(?))) LIMIT 1)",
        ("disconnected", "acc-1", "a@b.co", "a@b.co", "a@b.co"),
    ),
    (
        "UPDATE orphans SET attempts = attempts + 1, reason = ?, next_attempt_at = ?,"
        " parked_at = ?, leased_until = NULL WHERE id = ? AND leased_until = ?",
        ("r", BEFORE, None, ORPHAN, AFTER),
    ),
    (
        "UPDATE orphans SET reason = ?, parked_at = ?, leased_until = NULL WHERE id = ?",
        ("r", BEFORE, ORPHAN),
    ),
    (
        "SELECT CAST(id AS TEXT) FROM orphans WHERE substr(CAST(id AS TEXT), 1, ?) = ? LIMIT 2",
        (4, ORPHAN[:4]),
    ),
    (
        "SELECT count(*), count(parked_at), count(CASE WHEN parked_at IS NOT NULL"
        " AND (parked_at < ? OR created_at < ?) THEN 1 END) FROM orphans",
        (BEFORE, BEFORE),
    ),
    ("SELECT DISTINCT plugin FROM orphans", ()),
    ("DELETE FROM orphans WHERE id = ? AND attempts = ?", (ORPHAN, 2)),
    ("DELETE FROM idempotency_keys WHERE leased_until <= ?", (AFTER,)),
    (f"DELETE FROM accounts WHERE {UNCHANGED}", (ACCOUNT, USER, "disconnected", *ROW[3:])),
)


@pytest.fixture
def store(database_url):
    """The newest tables, and an account."""
    store = database.connect(database_url)
    schema.upgrade(store)
    with store.writing():
        store.sql(
            "INSERT INTO accounts (id, user_id, type, status, provider_account_id)"
            " VALUES (?, ?, 'linkedin', 'connected', 'acc-1')",
            ACCOUNT,
            USER,
        )
    yield store
    store.close_all()


def test_the_statements_of_the_release_before_do_the_same_in_the_newest_tables(store):
    lock = "FOR UPDATE SKIP LOCKED" if isinstance(store, database.Postgres) else ""
    for statement, params in RELEASED:
        text = statement.replace("{which}", DUE).replace("{lock}", lock)
        with store.writing():
            cursor = store.sql(text, *params)
            rows = cursor.fetchall() if cursor.description else cursor.rowcount
        assert rows == 1 or len(rows) == 1, f"{text}: {rows}"


def test_a_schema_is_told_to_be_older_current_or_newer(store, database_url):
    environ = {"DATABASE_URL": database_url}

    def told() -> list[tuple[int, str, str]]:
        status, checked = invoke(environ, "db", "status"), invoke(environ, "check", "--local")
        assert status.stderr.splitlines()[-1:] == [schema.versions(store).said]
        schema_lines = [line for line in checked.stdout.splitlines() if "  schema: " in line]
        return [
            (status.exit_code, line.split()[0], line.partition("schema: ")[2])
            for line in schema_lines
        ]

    assert told() == [(0, "ok", "up to date")]
    with store.writing():
        store.sql(
            "INSERT INTO puffle_accounts_migrations (name, applied) VALUES (?, ?)", NEWER, BEFORE
        )
    said = f"newer than this code, by {NEWER}: it serves this code too"
    assert told() == [(0, "ok", said)]
    assert invoke(environ, "db", "upgrade").stdout == "The tables are up to date.\n"
    assert f"{NEWER}  applied 2026-01-01" in invoke(environ, "db", "status").stdout
    with store.writing():
        store.sql("DELETE FROM puffle_accounts_migrations WHERE name >= ?", MIGRATIONS[-1])
    said = "older than this code, 1 pending migration: run puffle-accounts db upgrade"
    assert told() == [(1, "FAIL", said)]
    assert invoke(environ, "db", "upgrade").stdout == APPLIED.splitlines(True)[-1]
    assert told() == [(0, "ok", "up to date")]
