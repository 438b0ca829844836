"""Read an account's row as a snapshot, and change the row only if it is still the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

from puffle_accounts import clock
from puffle_accounts.account import TIMES, Account
from puffle_accounts.database import Database

COLUMNS = tuple(field.name for field in fields(Account))
# As text: psycopg would read the JSON itself, and fail where nobody could leave it out.
SELECTED = ", ".join(f"a.{column}" for column in COLUMNS).replace(
    "a.metadata", "CAST(a.metadata AS TEXT)"
)

UNCHANGED = (
    "id = ? AND user_id = ? AND status IS ? AND provider_account_id IS ?"
    " AND email_address IS ? AND agentmail_inbox_id IS ? AND instantly_account_id IS ?"
)
DELETE = f"DELETE FROM accounts WHERE {UNCHANGED}"
DISCONNECT = f"UPDATE accounts SET status = 'disconnected', updated_at = clock(?) WHERE {UNCHANGED}"

log = logging.getLogger(__name__)


def from_row(row: Any) -> Account:
    """Return the snapshot of a row that was selected as `SELECTED`.

    Metadata that no orphan could hold, or a time that is none, is logged and left out: it
    must not keep an account from being ended.
    """
    values = dict(zip(COLUMNS, row, strict=True))
    snapshot: dict[str, Any] = {n: v if v is None else str(v) for n, v in values.items()}
    for name, read in READ_AS.items():
        try:
            snapshot[name] = read(values[name])
        except (ValueError, OverflowError, RecursionError):
            snapshot[name] = None
            _left_out(values["id"], name)
    metadata = snapshot.pop("metadata") or {}
    try:
        return Account(**snapshot, metadata=metadata)
    except ValueError:  # nested too deep
        _left_out(values["id"], "metadata")
        return Account(**snapshot)


def _left_out(account_id: object, column: str) -> None:
    log.warning("account.unreadable", extra={"account": str(account_id), "column": column})


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
    return bool(database.sql(DELETE, *_unchanged(account)).rowcount)


def disconnect_unchanged(database: Database, account: Account) -> bool:
    """Soft-delete the row if it is still what the snapshot says; return whether it was."""
    return bool(database.sql(DISCONNECT, timedelta(), *_unchanged(account)).rowcount)


def _unchanged(account: Account) -> tuple[str | None, ...]:
    return (account.id, account.user_id, account.status, *account.provider_ids)
