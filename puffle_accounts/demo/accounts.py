"""The accounts of the demo: its own three, and those that somebody gives."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from puffle_accounts import clock, database, keys
from puffle_accounts.account import ID_COLUMNS, Account, parse_id
from puffle_accounts.database import schema
from puffle_accounts.database.models import MODELS, AccountRow
from puffle_accounts.demo.sandbox import Sandbox

TEXTS = ("id", "type", "status", "display_name", *ID_COLUMNS)
FIELDS = (*TEXTS, "metadata")

ACCOUNTS = (
    (
        "a connected LinkedIn account: its session is revoked, the row stays as disconnected",
        {"type": "linkedin", "status": "connected", "provider_account_id": "unipile-acc-1"},
    ),
    (
        "a disconnected LinkedIn account: no provider is called, the row is deleted",
        {"type": "linkedin", "status": "disconnected", "provider_account_id": "unipile-acc-2"},
    ),
    (
        "an e-mail account: warm-up and inbox are deleted, then the row",
        {
            "type": "email",
            "status": "connected",
            "email_address": "ada@outreach.example",
            "agentmail_inbox_id": "ada@outreach.example",
            "instantly_account_id": "ada@outreach.example",
        },
    ),
)


#: What the providers hold for nobody: left before this service was there.
FORGOTTEN = (("unipile", "unipile-acc-forgotten"), ("agentmail", "forgotten@outreach.example"))


def read(text: str) -> dict[str, Any]:
    """Return the columns of an account that is given as a JSON object.

    Raises:
        ValueError: there cannot be such an account; the message says why.
    """
    try:
        given = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError('an account is a JSON object such as {"type": "email"}')
    for name, value in given.items():
        if name not in FIELDS:
            raise ValueError(f"an account has no {name!r}, but {', '.join(FIELDS)}")
        if name in TEXTS and not (value is None or (isinstance(value, str) and _is_text(value))):
            raise ValueError(f"{name} must be a text")
    columns = {"status": "connected", "metadata": {}, **given}
    if not (columns.get("type") or "").strip():
        raise ValueError('type must be there, such as "email"')
    if not isinstance(columns["metadata"], dict):
        raise ValueError("metadata must be a JSON object")
    columns["id"] = parse_id(columns.get("id") or str(uuid.uuid4()))
    if columns["id"] is None:
        raise ValueError("id must be a UUID")
    Account(**columns, user_id="")  # refuses metadata that is nested too deep
    return columns


def fill(
    url: str, sandbox: Sandbox, more: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, dict[str, str]]:
    """Migrate the database and put the accounts and a user's key into it.

    Returns:
        The key, and of each account its id and what it is there to show.
    """
    store = database.connect(url)
    store.bind(MODELS)
    schema.upgrade(store)
    given = [(f"an account of yours: {each['type']}", dict(each)) for each in more]
    user, shown = str(uuid.uuid4()), {}
    with store.writing():
        key = keys.create(user, "demo")
        for what, columns in (*ACCOUNTS, *given):
            now = clock.now()
            row = {"id": str(uuid.uuid4()), "created_at": now, "updated_at": now, **columns}
            AccountRow.create(user_id=user, **row)
            shown[row["id"]] = what
            _hold(sandbox, columns)
    for provider, resource_id in FORGOTTEN:
        sandbox.add(provider, resource_id)
    store.close_all()
    return key, shown


def _hold(sandbox: Sandbox, columns: Mapping[str, Any]) -> None:
    """Let the providers hold what an account names, unless it has been ended already."""
    for provider, column in (
        ("unipile", "provider_account_id"),
        ("instantly", "instantly_account_id"),
        ("agentmail", "agentmail_inbox_id"),
    ):
        if columns.get(column) and columns["status"] != "disconnected":
            sandbox.add(provider, columns[column])


def _is_text(value: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
