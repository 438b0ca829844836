"""How a key travels, where that is not a header that the plugin's author writes in a line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from puffle_accounts.upstream import addresses


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


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """An `authenticate` for a token that is fetched first (RFC 6749 §4.4): the key is the secret.

    The token is kept until the provider answers 401, then fetched once more.

    Args:
        client_id_variable: the environment variable with the client's id.
        token_url_variable: the environment variable with the URL of the token endpoint.
        token_url: where that is if the variable is not set; `{VARIABLE}` in it stands for the
            value of another variable.
        scope: what the token is for, if the provider wants to know.
    """

    client_id_variable: str
    token_url_variable: str
    token_url: str
    scope: str | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that it needs, the key's apart."""
        named = addresses.named_in(self.token_url)
        return (self.client_id_variable, self.token_url_variable, *named)
