"""API keys of users: only their SHA-256 is stored."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from puffle_accounts import live
from puffle_accounts.database import Database
from puffle_accounts.database.models import ApiKey
from puffle_accounts.hooks.registry import Declaration
from puffle_accounts.live import Found

PREFIX = "pk_live_"
SHOWN = len(PREFIX) + 6  # characters of a key that `keys list` shows

# The key's user and, in the same round trip, this user's account of the id asked for.
IDENTIFY = """
SELECT k.user_id, {selected} FROM api_keys k
LEFT JOIN accounts a ON a.id = ? AND a.user_id = k.user_id
WHERE k.sha256 = ? AND k.revoked_at IS NULL"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the account of theirs that they ask for, if they have it."""

    user_id: str
    found: Found | None


def create(user_id: str, name: str | None) -> str:
    """Store a new key of a user and return it; nobody can read it again."""
    key = PREFIX + secrets.token_urlsafe(32)
    ApiKey.create(
        user_id=user_id, name=name, prefix=key[:SHOWN], sha256=_sha256(key), created_at=_now()
    )
    return key


def find(user_id: object | None = None) -> list[ApiKey]:
    """Return all keys, or those of a user, in the order of their ids."""
    query = ApiKey.select().order_by(ApiKey.id)
    return list(query.where(ApiKey.user_id == user_id) if user_id else query)


def revoke(key_id: int) -> bool:
    """Revoke a key by its id; return whether there was one to revoke."""
    live = (ApiKey.id == key_id) & ApiKey.revoked_at.is_null()
    return bool(ApiKey.update(revoked_at=_now()).where(live).execute())


def _now() -> datetime:
    database: Database = ApiKey._meta.database
    return database.now()


def identify(
    database: Database,
    declarations: tuple[Declaration, ...],
    key: str,
    account_id: str | None,
) -> Caller | None:
    """Return whose key this is, `None` if nobody's.

    Args:
        declarations: what the plugins hold, for the look whether another account shares it.
    """
    statement = IDENTIFY.format(selected=live.selected(database, declarations))
    row = database.sql(statement, account_id, _sha256(key)).fetchone()
    if row is None:
        return None
    user_id, *account = row
    return Caller(str(user_id), live.from_row(account) if account[0] else None)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
