"""The indexes of the look at live accounts: PostgreSQL's, made while others write.

They hold hashes of the ids: a text of some kilobytes would be refused by an index of the ids
themselves, and with it the row of whoever writes it.
"""

from __future__ import annotations

from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.postgres import Postgres

COLUMNS = (
    "provider_account_id",
    "email_address",
    "agentmail_inbox_id",
    "instantly_account_id",
)
#: Of releases before, which hold the ids themselves.
FORMER = ("puffle_accounts_provider", *(f"puffle_accounts_{column}" for column in COLUMNS))

IS_PARTITIONED = "SELECT 1 FROM pg_class WHERE oid = to_regclass('accounts') AND relkind = 'p'"
PARTITIONS = """
SELECT c.oid, CAST(CAST(c.oid AS regclass) AS TEXT) FROM pg_partition_tree('accounts') t
JOIN pg_class c ON c.oid = t.relid WHERE t.isleaf AND c.relkind = 'r'"""
FOUND = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), i.indisvalid, c.relkind
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = to_regclass(?) AND c.relname = ?"""


def name_of(column: str) -> str:
    """Return the name of the index that finds accounts by a column."""
    return f"puffle_accounts_by_{column}"


def lacking(database: Pooled) -> list[str]:
    """Return the names of the indexes that are not there, or whose making was interrupted."""
    if not isinstance(database, Postgres):
        return []
    return [name for name in map(name_of, COLUMNS) if not _is_valid(database, "accounts", name)]


def ensure(database: Pooled) -> list[str]:
    """Make the indexes that are lacking, and drop those of releases before; return the new ones.

    Outside a transaction: each is made CONCURRENTLY, so that others read and write meanwhile.
    """
    if not isinstance(database, Postgres):
        return []
    made = lacking(database)
    for column in COLUMNS:
        if name_of(column) in made:
            _make(database, column)
    for name in FORMER:
        _drop(database, "accounts", name)
    if made:  # without figures of what they hold, PostgreSQL would rather read the whole table
        database.sql("ANALYZE accounts")
    return made


def _make(database: Postgres, column: str) -> None:
    """Make one index; of a partitioned table part by part, since it is refused as a whole."""
    name, expression = name_of(column), database.indexed(database.folded(column))
    is_partitioned = bool(database.sql(IS_PARTITIONED).fetchone())
    rows = database.sql(PARTITIONS).fetchall() if is_partitioned else []
    parts = [(table, f"{name}_{oid}") for oid, table in rows]
    for table, each in parts if is_partitioned else [("accounts", name)]:
        if not _is_valid(database, table, each):
            _drop(database, table, each)
            database.sql(f"CREATE INDEX CONCURRENTLY {each} ON {table} ({expression})")
    if is_partitioned:
        _drop(database, "accounts", name)
        database.sql(f"CREATE INDEX {name} ON accounts ({expression})")  # of what the parts have


def _is_valid(database: Postgres, table: str, name: str) -> bool:
    row = database.sql(FOUND, table, name).fetchone()
    return bool(row and row[1])


def _drop(database: Postgres, table: str, name: str) -> None:
    row = database.sql(FOUND, table, name).fetchone()
    if row:
        concurrently = "" if row[2] == "I" else "CONCURRENTLY"
        database.sql(f"DROP INDEX {concurrently} {row[0]}")
