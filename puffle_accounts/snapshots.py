"""Read an account's row as a snapshot, and change the row only if it is still the same."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

from puffle_accounts import clock
from puffle_accounts.account import ID_COLUMNS, TIMES, Account
from puffle_accounts.database import Database

COLUMNS = tuple(field.name for field in fields(Account))
# What is asked of providers and compared afterwards.
COMPARED = ("status", *ID_COLUMNS)
DELETE = "DELETE FROM accounts WHERE "
DISCONNECT = "UPDATE accounts SET status = 'disconnected', updated_at = clock(?) WHERE "

log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=16)
def selected(database: Database) -> str:
    """Return what to select of an account `a` for `from_row`."""
    # JSON as text too: psycopg would read it itself, and fail where nobody could leave it out.
    read = {column: database.as_text(f"a.{column}") for column in COLUMNS}
    read |= {time: f"a.{time}" for time in TIMES} | {"metadata": "CAST(a.metadata AS TEXT)"}
    return ", ".join(read[column] for column in COLUMNS)


def unreadable(row: Any) -> str | None:
    """Return the column of a row that is compared but cannot be read exactly, `None` if all can."""
    values = dict(zip(COLUMNS, row, strict=True))
    return next((name for name in COMPARED if not _is_exact(values[name])), None)


def _is_exact(value: Any) -> bool:
    """Whether a value is text, its bytes in UTF-8, or a number that has lost no digit."""
    try:
        _text(value, errors="strict")
    except UnicodeDecodeError:
        return False
    return not isinstance(value, float)


def _text(value: Any, errors: str = "replace") -> str:
    return value.decode(errors=errors) if isinstance(value, bytes) else str(value)


def from_row(row: Any) -> Account:
    """Return the snapshot of a row that was selected as `selected` says.

    Metadata that no orphan could hold, or a time that is none, is logged and left out: it
    must not keep an account from being ended.
    """
    values = dict(zip(COLUMNS, row, strict=True))
    snapshot: dict[str, Any] = {n: v if v is None else _text(v) for n, v in values.items()}
    for name, read in READ_AS.items():
        try:
            snapshot[name] = read(values[name])
        except (ValueError, OverflowError, RecursionError):
            snapshot[name] = None
            _left_out(snapshot["id"], name)
    metadata = snapshot.pop("metadata") or {}
    try:
        return Account(**snapshot, metadata=metadata)
    except ValueError:  # nested too deep
        _left_out(snapshot["id"], "metadata")
        return Account(**snapshot)


def _left_out(account_id: str, column: str) -> None:
    log.warning("account.unreadable", extra={"account": account_id, "column": column})


def _json_object(text: str | None) -> Any:
    found = None if text is None else json.loads(text)
    if not isinstance(found, dict | None):
        raise ValueError("not a JSON object")
    json.dumps(found, allow_nan=False)  # Python reads what JSON has no word for
    return found


READ_AS: dict[str, Callable[[Any], Any]] = {
    "metadata": _json_object,
    **dict.fromkeys(TIMES, clock.moment),
}


def delete_unchanged(database: Database, account: Account) -> bool:
    """Delete the row if it is still what the snapshot says; return whether it was."""
    return bool(database.sql(DELETE + _same(database), *_unchanged(account)).rowcount)


def disconnect_unchanged(database: Database, account: Account) -> bool:
    """Soft-delete the row if it is still what the snapshot says; return whether it was."""
    values = (timedelta(), *_unchanged(account))
    return bool(database.sql(DISCONNECT + _same(database), *values).rowcount)


@functools.lru_cache(maxsize=16)
def _same(database: Database) -> str:
    compared = [f"{database.exactly(column)} IS ?" for column in COMPARED]
    return " AND ".join(["id = ?", "user_id = ?", *compared])


def _unchanged(account: Account) -> tuple[str | None, ...]:
    return (account.id, account.user_id, account.status, *account.provider_ids)
