"""API keys: only their SHA-256 is stored."""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass
from typing import Any

from flask import request
from flask_httpauth import HTTPTokenAuth

from puffle_accounts import clock, snapshots
from puffle_accounts.account import Account, parse_id
from puffle_accounts.database import Database
from puffle_accounts.models import ApiKey
from puffle_accounts.problems import Problem

PREFIX = "pk_live_"
SHOWN = len(PREFIX) + 6  # characters of a key that `keys list` shows
REALM = "puffle"

# The key's user and, in the same round trip, this user's account of the id asked for.
IDENTIFY = f"""
SELECT k.user_id, {snapshots.SELECTED} FROM api_keys k
LEFT JOIN accounts a ON a.id = ? AND a.user_id = k.user_id
WHERE k.sha256 = ? AND k.revoked_at IS NULL"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the account of theirs that they ask for, if they have it."""

    user_id: str
    account: Account | None


def create(user_id: str, name: str | None) -> str:
    """Store a new key of a user and return it; nobody can read it again."""
    key = PREFIX + secrets.token_urlsafe(32)
    ApiKey.create(
        user_id=user_id, name=name, prefix=key[:SHOWN], sha256=_sha256(key), created_at=clock.now()
    )
    return key


def find(user_id: object | None = None) -> list[ApiKey]:
    """Return all keys, or those of a user, in the order of their ids."""
    query = ApiKey.select().order_by(ApiKey.id)
    return list(query.where(ApiKey.user_id == user_id) if user_id else query)


def revoke(key_id: int) -> bool:
    """Revoke a key by its id; return whether there was one to revoke."""
    live = (ApiKey.id == key_id) & ApiKey.revoked_at.is_null()
    return bool(ApiKey.update(revoked_at=clock.now()).where(live).execute())


def identify(database: Database, key: str, account_id: str | None) -> Caller | None:
    """Return whose key this is, `None` if nobody's."""
    row = database.run(IDENTIFY, account_id, _sha256(key)).fetchone()
    if row is None:
        return None
    user_id, *account = row
    return Caller(str(user_id), snapshots.from_row(account) if account[0] else None)


def challenge() -> Problem:
    """Return the 401; it names the error only if a token was presented (RFC 6750 §3.1)."""
    # From the raw header: Flask-HTTPAuth takes one that it does not understand for none.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    presented = scheme.lower() == "bearer" and bool(token.strip())
    log.warning("key.rejected", extra={"outcome": "invalid" if presented else "missing"})
    error = ', error="invalid_token"' if presented else ""
    return Problem("unauthorized", WWW_Authenticate=f'Bearer realm="{REALM}"{error}')


def token_auth(database: Database) -> HTTPTokenAuth:
    """Return the authentication of requests by a key of `database`."""
    auth = HTTPTokenAuth(scheme="Bearer", realm=REALM)

    @auth.verify_token
    def verify(token: str) -> Caller | None:
        asked_for = (request.view_args or {}).get("account_id", "")
        with database.reading():
            return identify(database, token, parse_id(asked_for))

    @auth.error_handler
    def refuse(status: int) -> Any:
        raise challenge()

    return auth


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
