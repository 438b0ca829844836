"""PostgreSQL's indexes of ids hold hashes of them, and let others write while they are made.

Those of 0002 and 0004 refused values of some kilobytes, and columns that are not text.
"""

from typing import cast

from peewee import Database
from playhouse.migrate import SchemaMigrator

from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.schema import indexes

atomic = False


def up(migrator: SchemaMigrator, db: Database) -> None:
    indexes.ensure(cast(Pooled, db))
