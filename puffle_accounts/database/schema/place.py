"""Where the tables are: what a plain name means to this role, and where new ones belong."""

from __future__ import annotations

from typing import Any, NamedTuple

from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.errors import SchemaError

HISTORY = "puffle_accounts_migrations"
OWN = ("api_keys", "idempotency_keys", "orphans", HISTORY)

#: The schemas of the `search_path` in its order, and which of our names are taken in each.
SCHEMAS = """
SELECT s.name, has_schema_privilege(s.name, 'CREATE'), ARRAY(
    SELECT CAST(c.relname AS TEXT) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = s.name AND CAST(c.relname AS TEXT) = ANY(?)
) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, position) ORDER BY s.position"""


class _Schema(NamedTuple):
    name: str
    may_create: bool
    taken: list[str]


def own(database: Pooled) -> str | None:
    """Return the schema of this service's own tables, `None` for the only one or none.

    It is that of `accounts`, so that every role that finds the one finds the others; where
    another's table has one of their names, a schema that the role's `search_path` has before it.

    Raises:
        SchemaError: they cannot be made, or a plain name would lead to somebody else's.
    """
    if not isinstance(database, Postgres):
        _require_free(_taken_in_sqlite(database))
        return None
    names = ["accounts", *OWN]
    schemas = [_Schema(*row) for row in database.sql(SCHEMAS, names).fetchall()]
    made = _first(schemas, HISTORY)
    if made is not None:
        _require_visible(schemas, schemas[made].name)
        return schemas[made].name
    adopted = _first(schemas, "accounts")
    order = list(range(len(schemas)))
    for index in order if adopted is None else [adopted, *order[:adopted]]:
        before = {name for schema in schemas[: index + 1] for name in schema.taken}
        if schemas[index].may_create and not before.intersection(OWN):
            return schemas[index].name
    _require_free({name for schema in schemas for name in schema.taken} & set(OWN))
    raise SchemaError(_no_room(schemas, adopted))


def hidden(database: Postgres) -> str | None:
    """Return what is wrong where an empty `accounts` stands before another one."""
    schemas = [_Schema(*row) for row in database.sql(SCHEMAS, ["accounts"]).fetchall()]
    having = [schema.name for schema in schemas if schema.taken]
    if len(having) < 2 or database.sql("SELECT 1 FROM accounts LIMIT 1").fetchone():
        return None
    first, second = having[:2]
    return (
        f"accounts means {first}.accounts, which is empty and stands before {second}.accounts in"
        " this role's search_path: drop or rename the one that is not meant"
    )


def _first(schemas: list[_Schema], name: str) -> int | None:
    return next((i for i, schema in enumerate(schemas) if name in schema.taken), None)


def _require_visible(schemas: list[_Schema], ours: str) -> None:
    for name in OWN:
        found = _first(schemas, name)
        if found is not None and schemas[found].name != ours:
            raise SchemaError(
                f"to this role {name} means {schemas[found].name}.{name}, not {ours}.{name}:"
                f" put {ours} before {schemas[found].name} in its search_path"
            )


def _taken_in_sqlite(database: Pooled) -> set[str]:
    rows: Any = database.sql("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    names = {name for (name,) in rows.fetchall()}
    return set() if HISTORY in names else names.intersection(OWN)


def _require_free(taken: set[str]) -> None:
    if taken:
        name = min(taken)
        raise SchemaError(
            f"there is a table {name} already that this service has not made: rename it, or"
            " (PostgreSQL) put a schema of this service's own first in the search_path of its roles"
        )


def _no_room(schemas: list[_Schema], adopted: int | None) -> str:
    if not schemas:
        return "no schema of this role's search_path is there: create one"
    name = schemas[adopted or 0].name
    return f"this role may not create tables in the schema {name}: GRANT CREATE ON SCHEMA {name}"
