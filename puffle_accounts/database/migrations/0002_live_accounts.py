"""Indexes for the look at the live accounts, right before a retry.

Apart from what adds a column: this one reads the whole table, and lets others read it meanwhile.
"""

from peewee import Database, PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

INDEXED = {
    "provider_account_id": "provider_account_id",
    "email_address": "lower(email_address)",
    "agentmail_inbox_id": "lower(agentmail_inbox_id)",
    "instantly_account_id": "lower(instantly_account_id)",
}


def up(migrator: SchemaMigrator, db: Database) -> None:
    if isinstance(db, PostgresqlDatabase):
        return  # its indexes refused long values: 0005 makes others, and drops those that are there
    for column, expression in INDEXED.items():
        db.execute_sql(
            f"CREATE INDEX IF NOT EXISTS puffle_accounts_{column} ON accounts ({expression})"
        )
