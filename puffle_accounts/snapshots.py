"""Read an account's row as a snapshot, and change the row only if it is still the same."""

from __future__ import annotations

import json
from typing import Any

from puffle_accounts import clock
from puffle_accounts.account import TIMES, Account
from puffle_accounts.database import Database

COLUMNS = (
    "id",
    "user_id",
    "type",
    "status",
    "display_name",
    "provider_account_id",
    "email_address",
    "agentmail_inbox_id",
    "instantly_account_id",
    "metadata",
    "created_at",
    "updated_at",
)
SELECTED = ", ".join(f"a.{column}" for column in COLUMNS)

READ = f"SELECT {SELECTED} FROM accounts a WHERE a.id = ? AND a.user_id = ?"
UNCHANGED = (
    "id = ? AND user_id = ? AND status IS ? AND provider_account_id IS ?"
    " AND email_address IS ? AND agentmail_inbox_id IS ? AND instantly_account_id IS ?"
)
DELETE = f"DELETE FROM accounts WHERE {UNCHANGED}"
DISCONNECT = f"UPDATE accounts SET status = 'disconnected', updated_at = ? WHERE {UNCHANGED}"


def read(database: Database, account_id: str, user_id: str) -> Account | None:
    """Return the snapshot of a user's account, `None` if there is none."""
    row = database.run(READ, account_id, user_id).fetchone()
    return row and from_row(row)


def from_row(row: Any) -> Account:
    """Return the snapshot of a row that was selected as `SELECTED`.

    Raises:
        ValueError: its metadata is not a JSON object.
    """
    values = dict(zip(COLUMNS, row, strict=True))
    metadata = values["metadata"]
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    if not isinstance(metadata or {}, dict):
        raise ValueError(f"metadata of account {values['id']} is not a JSON object")
    snapshot: dict[str, Any] = {n: v if v is None else str(v) for n, v in values.items()}
    snapshot["metadata"] = metadata or {}
    for name in TIMES:
        snapshot[name] = clock.moment(values[name])
    return Account(**snapshot)


def delete_unchanged(database: Database, account: Account) -> bool:
    """Delete the row if it is still what the snapshot says; return whether it was."""
    return bool(database.run(DELETE, *_unchanged(account)).rowcount)


def disconnect_unchanged(database: Database, account: Account) -> bool:
    """Soft-delete the row if it is still what the snapshot says; return whether it was."""
    now = clock.stamp(clock.now())
    return bool(database.run(DISCONNECT, now, *_unchanged(account)).rowcount)


def _unchanged(account: Account) -> tuple[str | None, ...]:
    return (account.id, account.user_id, account.status, *account.provider_ids)
