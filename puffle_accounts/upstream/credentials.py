"""How a key travels, where that is not a header that the plugin's author writes in a line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """Query parameters that carry the key; the client adds them to every request."""

    params: Mapping[str, str]


def in_query(name: str) -> Callable[[str], Query]:
    """Return an `authenticate` that puts the key into the query, under this name."""
    return lambda key: Query({name: key})


def basic(user: str) -> Callable[[str], Mapping[str, str]]:
    """Return an `authenticate` for basic authentication (RFC 7617): the key is the password.

    Args:
        user: the name that goes with it; it has no colon.

    Raises:
        ValueError: it has one.
    """
    if ":" in user:
        raise ValueError("the user of basic authentication has no colon: RFC 7617 §2")

    def authenticate(key: str) -> Mapping[str, str]:
        return {"Authorization": f"Basic {b64encode(f'{user}:{key}'.encode()).decode()}"}

    return authenticate
