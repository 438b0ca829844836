"""Orphans keep their snapshots word for word: JSONB refuses some that JSON can say."""

from peewee import Database, PostgresqlDatabase
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    if isinstance(db, PostgresqlDatabase):
        db.execute_sql("ALTER TABLE orphans ALTER COLUMN account TYPE JSON USING account::json")
