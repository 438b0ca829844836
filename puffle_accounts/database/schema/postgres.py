"""What keeps PostgreSQL's `accounts` table from being adopted, as its catalogue tells it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from peewee import PeeweeException

from puffle_accounts.database.postgres import Postgres

WORDS = {"text", "varchar", "bpchar", "citext", "name"}
NAMES = WORDS | {"uuid", "int2", "int4", "int8", "numeric"}  # that say the same in any index
TIMES = WORDS | {"timestamp", "timestamptz", "date"}
ENUM = "an enum"

#: What a column may be, and what it is to be made where it is something else.
TYPES: dict[str, tuple[set[str], str]] = {
    "type": (WORDS | {ENUM}, "text"),
    "status": (WORDS | {ENUM}, "text"),
    "updated_at": (TIMES, "timestamptz"),
    "provider_account_id": (NAMES, "text"),
    "email_address": (NAMES, "text"),
    "agentmail_inbox_id": (NAMES, "text"),
    "instantly_account_id": (NAMES, "text"),
    "metadata": (WORDS | {"json", "jsonb"}, "jsonb"),
}
READ = ("display_name", "created_at")

TABLE = """
SELECT c.relkind, quote_ident(n.nspname), pg_get_userbyid(c.relowner), current_user,
    pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(n.oid, 'CREATE'),
    row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('accounts')"""
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
# A domain is what it is made of.
COLUMNS = """
SELECT CAST(a.attname AS TEXT), format_type(a.atttypid, a.atttypmod),
    CASE base.typtype WHEN 'e' THEN ? ELSE CAST(base.typname AS TEXT) END, a.attgenerated <> ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type base ON base.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid)
WHERE a.attrelid = to_regclass('accounts') AND a.attnum > 0 AND NOT a.attisdropped"""
CONSTRAINTS = """
SELECT CAST(c.conname AS TEXT), pg_get_expr(c.conbin, c.conrelid)
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = 'status'
WHERE c.conrelid = to_regclass('accounts') AND c.contype = 'c' AND c.conkey = ARRAY[a.attnum]"""
RULES = """
SELECT CAST(rulename AS TEXT), CASE ev_type WHEN '2' THEN 'UPDATE' ELSE 'DELETE' END FROM pg_rewrite
WHERE ev_class = to_regclass('accounts') AND is_instead AND ev_type IN ('2', '4')
    AND CAST(ev_qual AS TEXT) = '<>' AND ev_enabled <> 'D'"""
FORBIDDEN = """
SELECT c.command
FROM (VALUES ('SELECT', 'r'), ('UPDATE', 'w'), ('DELETE', 'd')) AS c (command, code)
WHERE NOT EXISTS (
    SELECT 1 FROM pg_policy p WHERE p.polrelid = to_regclass('accounts') AND p.polpermissive
        AND CAST(p.polcmd AS TEXT) IN (c.code, '*')
        AND EXISTS (SELECT 1 FROM unnest(p.polroles) role
            WHERE role = 0 OR pg_has_role(role, 'USAGE')))"""


class Table(NamedTuple):
    """What `accounts` is, and what this role may do to it."""

    kind: str
    schema: str
    owner: str
    role: str
    is_owner: bool
    may_create: bool
    has_policies: bool


class Column(NamedTuple):
    """A column: its type as it is written, and the kind of that."""

    name: str
    type: str
    kind: str
    is_generated: bool


def table(database: Postgres) -> Table | None:
    """Return what a plain `accounts` means to this role, `None` if nothing."""
    row = database.sql(TABLE).fetchone()
    return row and Table(*row)


def obstacles(database: Postgres, found: Table) -> Iterator[str]:
    """Return why the service could not end accounts in this table, a line each."""
    if found.kind in KINDS:
        yield f"accounts is {KINDS[found.kind]}: it must be the table itself"
        return
    columns = {row[0]: Column(*row) for row in database.sql(COLUMNS, ENUM).fetchall()}
    yield from _lacking(columns)
    yield from _types(columns)
    if "status" in columns and columns["status"].kind in TYPES["status"][0]:
        yield from _status(database, columns["status"])
    yield from _rules(database)
    if found.has_policies:
        yield from _policies(database, found)


def rights_to_change(found: Table) -> Iterator[str]:
    """Return what this role lacks to migrate the table."""
    if not found.is_owner:
        yield f"this role must be owner of table accounts, as {found.owner} is: upgrade as that"
    elif not found.may_create:
        yield (
            f"this role may not create an index in the schema {found.schema}:"
            f" GRANT CREATE ON SCHEMA {found.schema} TO {found.role}"
        )


def _lacking(columns: dict[str, Column]) -> Iterator[str]:
    needed = {"id", "user_id", *READ, *TYPES} - {"metadata"}
    missing = sorted(needed - set(columns))
    if missing:
        yield f"the table accounts lacks the columns {', '.join(missing)}"


def _types(columns: dict[str, Column]) -> Iterator[str]:
    if {columns[name].kind for name in ("id", "user_id") if name in columns} - {"uuid"}:
        yield "the columns id and user_id of the table accounts must be of type uuid"
    for name, (kinds, wanted) in TYPES.items():
        column = columns.get(name)
        if column and column.kind not in kinds:
            yield (
                f"the column {name} of the table accounts is {column.type}, which this service"
                f" cannot use: ALTER TABLE accounts ALTER COLUMN {name} TYPE {wanted}"
            )
        elif column and column.is_generated and name in ("status", "updated_at"):
            yield f"the column {name} of the table accounts is generated: it must take values"


def _status(database: Postgres, status: Column) -> Iterator[str]:
    """Look whether a status may become `disconnected`."""
    disconnected = f"CAST('disconnected' AS {status.type})"
    if not _holds(database, disconnected):
        remedy = (
            f"ALTER TYPE {status.type} ADD VALUE 'disconnected'"
            if status.kind == ENUM
            else "ALTER TABLE accounts ALTER COLUMN status TYPE text"
        )
        yield (
            f"the column status of the table accounts is {status.type}, which does not hold"
            f" 'disconnected': {remedy}"
        )
        return
    for name, expression in database.sql(CONSTRAINTS).fetchall():
        row = f"(SELECT {disconnected} AS status) AS accounts"
        if _value(database, f"SELECT ({expression}) FROM {row}") is False:
            yield (
                f"the constraint {name} of the table accounts forbids the status 'disconnected':"
                " change it so that it permits that"
            )


def _holds(database: Postgres, disconnected: str) -> bool:
    said: Any = _value(database, f"SELECT CAST({disconnected} AS TEXT)")
    return said is not None and said.strip() == "disconnected"


def _value(database: Postgres, statement: str) -> Any:
    """Return what a statement selects, `None` where it cannot be."""
    try:
        return database.execute_sql(statement.replace("%", "%%"), ()).fetchone()[0]
    except PeeweeException:
        return None


def _rules(database: Postgres) -> Iterator[str]:
    for name, command in database.sql(RULES).fetchall():
        yield f"the rule {name} of the table accounts takes the place of {command}: drop it"


def _policies(database: Postgres, found: Table) -> Iterator[str]:
    for (command,) in database.sql(FORBIDDEN).fetchall():
        yield (
            f"row-level security permits this role to {command} no row of accounts:"
            f" CREATE POLICY … ON accounts FOR {command} TO {found.role} USING (…)"
        )
