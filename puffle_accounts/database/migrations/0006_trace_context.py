"""Which DELETE made an orphan, as `traceparent` of the W3C's Trace Context; filled by the extra."""

from peewee import Database
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    db.execute_sql("ALTER TABLE orphans ADD COLUMN traceparent TEXT")
