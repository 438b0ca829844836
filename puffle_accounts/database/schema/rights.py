"""What a role must be allowed to serve requests and to run the retrier: the README's GRANTs."""

from __future__ import annotations

from collections.abc import Iterator

from puffle_accounts.database.postgres import Postgres

FUNCTION = "puffle_accounts_value(text, text)"
# Of the accounts single columns will do; of our own tables nobody grants those.
ACCOUNTS = """
SELECT 'SELECT', CAST(attname AS TEXT) FROM pg_attribute
WHERE attrelid = to_regclass('accounts') AND CAST(attname AS TEXT) = ANY(?)
    AND NOT has_column_privilege(attrelid, attnum, 'SELECT')
UNION ALL SELECT 'UPDATE', CAST(attname AS TEXT) FROM pg_attribute
WHERE attrelid = to_regclass('accounts') AND CAST(attname AS TEXT) IN ('status', 'updated_at')
    AND NOT has_column_privilege(attrelid, attnum, 'UPDATE')
UNION ALL SELECT 'DELETE', NULL WHERE NOT has_table_privilege(to_regclass('accounts'), 'DELETE')"""
READ = [
    *("id", "user_id", "type", "status", "display_name", "provider_account_id", "email_address"),
    *("agentmail_inbox_id", "instantly_account_id", "metadata", "created_at", "updated_at"),
]
OWN = {
    "api_keys": ("SELECT",),
    "orphans": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
MISSING = """
SELECT n.name, n.privilege FROM unnest(CAST(? AS text[]), CAST(? AS text[])) AS n (name, privilege)
WHERE NOT has_table_privilege(to_regclass(n.name), n.privilege)"""


def lacking(database: Postgres, role: str) -> Iterator[str]:
    """Return what this role may not do but has to, a line each."""
    missing = [
        (f"{privilege} ({column})" if column else privilege, "accounts")
        for privilege, column in database.sql(ACCOUNTS, READ).fetchall()
    ]
    pairs = [(table, privilege) for table, privileges in OWN.items() for privilege in privileges]
    rows = database.sql(MISSING, *map(list, zip(*pairs, strict=True))).fetchall()
    missing += [(privilege, table) for table, privilege in rows]
    for privilege, table in missing:
        yield f"this role may not {privilege} in {table}: GRANT {privilege} ON {table} TO {role}"
    (may_call,) = database.sql(
        "SELECT has_function_privilege(to_regprocedure(?), 'EXECUTE')", FUNCTION
    ).fetchone()
    if not may_call:
        yield f"this role may not call {FUNCTION}: GRANT EXECUTE ON FUNCTION {FUNCTION} TO {role}"
