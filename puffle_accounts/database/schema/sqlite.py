"""What keeps SQLite's `accounts` table from being adopted: SQLite holds to no types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from puffle_accounts.database.sqlite import Sqlite

NEEDED = {
    "id",
    "user_id",
    "type",
    "status",
    "display_name",
    "provider_account_id",
    "email_address",
    "agentmail_inbox_id",
    "instantly_account_id",
    "created_at",
    "updated_at",
}
UUID = 36  # characters with dashes
DASHED = "||'-'||".join(f"substr({{0}}, {at})" for at in ("1, 8", "9, 4", "13, 4", "17, 4", "21"))
#: The 32 digits of a UUID, however it is written.
DIGITS = (
    "lower(CASE WHEN typeof({0}) = 'blob' AND length({0}) = 16 THEN hex({0})"
    " ELSE replace(CAST({0} AS TEXT), '-', '') END)"
)
#: A value that the id of a URL never equals, though it is a UUID, or a number. `=` folds as the
#: column says.
OTHERWISE = """
SELECT typeof({0}), CAST({0} AS TEXT) FROM accounts
WHERE NOT (typeof({0}) = 'text' AND length({0}) = 36 AND {0} = lower({0})) -- most, at little cost
AND (
    typeof({0}) IN ('integer', 'real')
    OR length({digits}) = 32 AND NOT {digits} GLOB '*[^0-9a-f]*' AND NOT {0} = {dashed}
) LIMIT 1"""


def obstacles(database: Sqlite) -> Iterator[str]:
    """Return why the service could not end accounts in this table, a line each; nothing if none."""
    (encoding,) = database.sql("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        yield f"the encoding of the database must be UTF-8, it is {encoding}"
    kind = database.sql("SELECT type FROM sqlite_master WHERE lower(name) = 'accounts'").fetchone()
    if kind is None:
        return
    if kind != ("table",):
        yield f"accounts is a {kind[0]}: it must be the table itself"
        return
    columns = {
        name.lower(): type for _, name, type, *_ in _rows(database, "PRAGMA table_info(accounts)")
    }
    missing = sorted(NEEDED - set(columns))
    if missing:
        yield f"the table accounts lacks the columns {', '.join(missing)}"
    for name in ("id", "user_id"):
        if name in columns:
            yield from _spelling(database, name, columns[name].lower())


def _rows(database: Sqlite, statement: str) -> list[Any]:
    return list(database.sql(statement).fetchall())


def _spelling(database: Sqlite, name: str, declared: str) -> Iterator[str]:
    """Look whether ids are lower-case text with dashes, as those of a URL are looked up."""
    column = f"the column {name} of the table accounts"
    digits = DIGITS.format(name)
    statement = OTHERWISE.format(name, digits=digits, dashed=DASHED.format(digits))
    found = database.sql(statement).fetchone()
    if found is not None and found[0] in ("integer", "real"):
        yield f"{column} holds numbers: it must hold UUIDs, as lower-case text with dashes"
    elif found is not None:
        yield (
            f"{column} holds UUIDs that are not lower-case text with dashes: UPDATE accounts"
            f" SET {name} = {_rewritten(name, *found)}, and let other code write them so"
        )
    elif not database.sql("SELECT 1 FROM accounts LIMIT 1").fetchone():
        length = re.search(r"\((\d+)\)", declared)
        if "int" in declared or (length and int(length[1]) < UUID):
            yield f"{column} is {declared}: it must hold UUIDs, as lower-case text with dashes"


def _rewritten(name: str, kind: str, example: str) -> str:
    if kind == "text" and "-" in example:
        return f"lower({name})"
    return f"lower({DASHED.format(name if kind == 'text' else f'hex({name})')})"
