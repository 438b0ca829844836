"""Try what an upgrade and the service will do, in transactions that are rolled back.

What a catalogue does not tell shows itself here: a name that is taken, a trigger, a policy.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from peewee import IntegrityError, PeeweeException

from puffle_accounts import clock
from puffle_accounts.database.pooled import Pooled
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.database.schema import upgrading
from puffle_accounts.errors import SchemaError
from puffle_accounts.text import one_line

ROWS = 10  # that may be particular, before all are taken to be so
FOREIGN_KEY = "foreign key"  # in the words of either database
KEPT = "a trigger or a policy keeps its rows as they are"

SESSIONS = "lower(trim(CAST(type AS TEXT))) = 'linkedin' AND CAST(status AS TEXT) <> 'disconnected'"
FIND = f"SELECT id FROM accounts WHERE {{}} LIMIT {ROWS} {{}}"
MAKE = """
INSERT INTO accounts
    (id, user_id, type, display_name, status, provider_account_id, created_at, updated_at)
VALUES (?, ?, 'linkedin', '', 'connected', ?, ?, ?)"""
DISCONNECT = """
UPDATE accounts SET status = 'disconnected', updated_at = ? WHERE id = ?
RETURNING CAST(status AS TEXT)"""
DONE = ("disconnected", "deleted")
DELETE = "DELETE FROM accounts WHERE id = ? RETURNING 'deleted'"


class _RolledBack(Exception):
    """It was a rehearsal."""


@contextmanager
def _rehearsing(database: Pooled, schema: str | None = None) -> Iterator[None]:
    with suppress(_RolledBack), upgrading.in_transaction(database, schema):
        yield
        raise _RolledBack


def migrations(database: Pooled, migrate: Callable[[], object], schema: str | None) -> None:
    """Rehearse the migrations, with the new tables in a schema.

    Raises:
        SchemaError: the database refuses one.
    """
    try:
        with _rehearsing(database, schema):
            migrate()
    except (ValueError, PeeweeException) as error:
        raise SchemaError(one_line(error)) from error


def changes(database: Pooled) -> None:
    """Disconnect and delete accounts that are there, or where there are none one made for it.

    Raises:
        SchemaError: no account can be.
    """
    with _rehearsing(database):
        sessions, accounts = _ids(database, SESSIONS), _ids(database, "1 = 1")
        made = [] if sessions and accounts else _made(database)
        _require(database, sessions or made, "UPDATE", DISCONNECT, clock.stamp(clock.now()))
        _require(database, accounts or made, "DELETE", DELETE)


def _ids(database: Pooled, which: str) -> list[str]:
    lock = "FOR UPDATE SKIP LOCKED" if isinstance(database, Postgres) else ""
    return [str(id) for (id,) in database.sql(FIND.format(which, lock)).fetchall()]


def _made(database: Pooled) -> list[str]:
    """Return the id of a new account; none where the table wants more of one than we know."""
    new, now = str(uuid.uuid4()), clock.stamp(clock.now())
    try:
        with database.atomic():  # type: ignore[attr-defined]
            database.sql(MAKE, new, new, new, now, now)
    except PeeweeException:
        return []
    return [new]


def _require(database: Pooled, ids: list[str], what: str, statement: str, *params: str) -> None:
    """Require that one of some accounts can be changed; a row may be kept for its own reasons."""
    refusals = []
    for each in ids:
        refusal = _refusal(database, statement, *params, each)
        if refusal is None:
            return
        refusals.append(refusal)
    if refusals:
        raise SchemaError(f"{what} does not work on the table accounts: {refusals[-1]}")


def _refusal(database: Pooled, statement: str, *params: str) -> str | None:
    try:
        with database.atomic():  # type: ignore[attr-defined]
            changed = database.sql(statement, *params).fetchall()
    except IntegrityError as error:
        return None if FOREIGN_KEY in str(error).lower() else one_line(error)
    except PeeweeException as error:
        return one_line(error)
    return None if changed and str(changed[0][0]).strip() in DONE else KEPT
