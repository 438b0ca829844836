"""What the look at live accounts needs where plugins name their ids themselves.

A function that reads a key of `metadata`, whether the column is jsonb, json or text, and holds
JSON in every row or not. And an index without regard to case, as the other three have it.
"""

from peewee import Database, PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

VALUE = """
CREATE OR REPLACE FUNCTION puffle_accounts_value(document text, key text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN document::jsonb ->> key;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$"""


def up(migrator: SchemaMigrator, db: Database) -> None:
    if isinstance(db, PostgresqlDatabase):
        db.execute_sql(VALUE)
        return  # its indexes are those of 0005
    db.execute_sql(
        "CREATE INDEX IF NOT EXISTS puffle_accounts_provider"
        " ON accounts (lower(provider_account_id))"
    )
    db.execute_sql("DROP INDEX IF EXISTS puffle_accounts_provider_account_id")
