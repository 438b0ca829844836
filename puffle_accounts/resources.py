"""What a plugin holds upstream, as it says itself: `RESOURCE_IDS`, the fields that name it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from puffle_accounts.account import ID_COLUMNS, Account
from puffle_accounts.errors import BrokenPlugin

METADATA = "metadata."


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that a provider holds, for `find_resources`.

    Args:
        id: as the plugin's first `RESOURCE_IDS` field has it.
        name: for people.
        created_at: aware; `None` where the provider does not say.
    """

    id: str
    name: str | None = None
    created_at: datetime | None = None


HINT = 'RESOURCE_IDS must name fields such as ("instantly_account_id", "metadata.crm_contact_id")'


def declared(module: Any) -> tuple[str, ...]:
    """Return the fields that a plugin declares, none if it declares none.

    Raises:
        BrokenPlugin: one of them cannot name anything.
    """
    fields = getattr(module, "RESOURCE_IDS", None)
    if fields is None:
        return ()
    if not isinstance(fields, (tuple, list, set, frozenset)) or not fields:
        raise BrokenPlugin(HINT)
    for field in fields:
        if not isinstance(field, str) or not (field in ID_COLUMNS or metadata_key(field)):
            raise BrokenPlugin(f"{HINT}, and there is no {field!r}")
    in_order = sorted(fields) if isinstance(fields, (set, frozenset)) else fields
    return tuple(dict.fromkeys(in_order))


def metadata_key(field: str) -> str | None:
    """Return the key of `metadata` that a field stands for, `None` if it is a column."""
    return field.removeprefix(METADATA) or None if field.startswith(METADATA) else None


def named(account: Account, fields: tuple[str, ...]) -> dict[str, str]:
    """Return what the fields of an account name, without those that name nothing.

    A value is a non-empty string or an integer, compared as text; one with an `@` is an
    address, of which upper and lower case do not matter.
    """
    values = {field: comparable(_value(account, field)) for field in fields}
    return {field: value for field, value in values.items() if value is not None}


def identity(account: Account, fields: tuple[str, ...]) -> str:
    """Return what tells one thing that a plugin may have left of an account from another.

    For a plugin that declares nothing, that is all that may name something.
    """
    if fields:
        return json.dumps(named(account, fields), sort_keys=True)
    ids = [getattr(account, column) for column in ID_COLUMNS]
    return json.dumps([*ids, account.metadata], sort_keys=True, default=dict)


def _value(account: Account, field: str) -> Any:
    key = metadata_key(field)
    return getattr(account, field) if key is None else account.metadata.get(key)


def comparable(value: Any) -> str | None:
    """Return an id as it is compared, `None` if it names nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        return None
    text = str(value)
    return text.lower() if "@" in text else text
