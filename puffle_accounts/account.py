"""The frozen picture of an account that plugins are given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any

from puffle_accounts import clock

TIMES = ("created_at", "updated_at")
#: The columns under which providers know an account.
ID_COLUMNS = (
    "provider_account_id",
    "email_address",
    "agentmail_inbox_id",
    "instantly_account_id",
)
# Levels of objects and arrays: how deep a Python reads by itself differs from one to the next.
METADATA_DEPTH = 100
_TOO_DEEP = f"metadata is nested deeper than {METADATA_DEPTH} levels"

_HEX = "[0-9a-fA-F]"
_ID = re.compile(
    f"{_HEX}{{8}}-{_HEX}{{4}}-[1-8]{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff"
)


def parse_id(text: str) -> str | None:
    """Return an account id as the tables hold it, in lower case; `None` if it is none.

    Versions 1 to 8 in the variant of RFC 9562, the nil UUID, and the max UUID in lower case.
    """
    return text.lower() if _ID.fullmatch(text) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An immutable snapshot of one row of `accounts`.

    Ids are `str` (UUIDs in lower case with dashes), times are aware and in UTC,
    `metadata` is a JSON object that is immutable all the way down.

    Raises:
        ValueError: `metadata` is nested deeper than `METADATA_DEPTH`.
    """

    id: str
    user_id: str
    type: str
    status: str | None = None
    display_name: str | None = None
    provider_account_id: str | None = None
    email_address: str | None = None
    agentmail_inbox_id: str | None = None
    instantly_account_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", frozen(self.metadata))

    @property
    def provider_ids(self) -> tuple[str | None, ...]:
        """The four ids under which providers know the account: what there is to tear down."""
        return tuple(getattr(self, column) for column in ID_COLUMNS)

    @property
    def kind(self) -> str:
        """The type as it is compared: others may write `LinkedIn`, or pad it with spaces."""
        return kind(self.type)

    @property
    def is_disconnected(self) -> bool:
        """Whether this is a LinkedIn account whose session has been ended already."""
        return self.kind == "linkedin" and self.status == "disconnected"

    def to_json(self) -> str:
        """Return the snapshot as a JSON object, times as ISO 8601."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in TIMES:
            values[name] = values[name] and values[name].isoformat()
        return json.dumps(values, default=dict)

    @classmethod
    def from_json(cls, text: str) -> Account:
        """Return the snapshot that `to_json` wrote.

        Raises:
            ValueError: `text` is not JSON, or its metadata is nested deeper than `METADATA_DEPTH`.
            TypeError: it is not the JSON of an account.
        """
        try:
            values = json.loads(text)
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for name, value in known.items():
            _require_type(name, value)
        for name in TIMES:
            known[name] = clock.moment(known.get(name))
        return cls(**known)


def kind(account_type: str | None) -> str:
    """Return a type as types are compared: without regard to case and to white space around it."""
    return (account_type or "").strip().lower()


def _require_type(name: str, value: Any) -> None:
    if name == "metadata":
        fits = isinstance(value, dict)
    else:
        fits = isinstance(value, str) or (value is None and name not in ("id", "user_id"))
    if not fits:
        raise TypeError(f"{name} cannot be {type(value).__name__}")


def frozen(value: Any, levels: int = METADATA_DEPTH) -> Any:
    """Return what JSON can hold as something that is immutable all the way down.

    Raises:
        ValueError: it is nested deeper than so many levels.
    """
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if not levels:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(item, levels - 1) for key, item in value.items()})
    return tuple(frozen(item, levels - 1) for item in value)
