"""Bearer authentication with an API key (RFC 6750)."""

from __future__ import annotations

import logging
from typing import Any

from flask import request
from flask_httpauth import HTTPTokenAuth

from puffle_accounts import keys
from puffle_accounts.account import parse_id
from puffle_accounts.errors import Problem
from puffle_accounts.keys import Caller
from puffle_accounts.service import Service

REALM = "puffle"

log = logging.getLogger(__name__)


def token_auth(service: Service) -> HTTPTokenAuth:
    """Return the authentication of requests by a key of the service's database."""
    auth = HTTPTokenAuth(scheme="Bearer", realm=REALM)

    @auth.verify_token
    def verify(token: str) -> Caller | None:
        asked_for = (request.view_args or {}).get("account_id", "")
        declarations = service.plugins.declarations
        with service.database.reading_before_change():
            return keys.identify(service.database, declarations, token, parse_id(asked_for))

    @auth.error_handler
    def refuse(status: int) -> Any:
        raise challenge()

    return auth


def challenge() -> Problem:
    """Return the 401; it names the error only if a token was presented (RFC 6750 §3.1)."""
    # From the raw header: Flask-HTTPAuth takes one that it does not understand for none.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    presented = scheme.lower() == "bearer" and bool(token.strip())
    log.warning("key.rejected", extra={"outcome": "invalid" if presented else "missing"})
    error = ', error="invalid_token"' if presented else ""
    return Problem("unauthorized", WWW_Authenticate=f'Bearer realm="{REALM}"{error}')
