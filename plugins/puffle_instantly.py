"""E-mail warm-up through Instantly v2: disable it, then delete the account there.

Facts: the API v2 reference at developer.instantly.ai, "Account".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from puffle_accounts import Account, Resource, TeardownFailed, hookimpl
from puffle_accounts.upstream import Upstream, resource

ACCOUNT_TYPES = {"email"}
RESOURCE_IDS = ("instantly_account_id", "email_address")
DISABLE_SHARE = 0.4  # of the time: a disable that hangs must leave enough for the delete


def _is_gone(body: Mapping[str, Any]) -> bool:
    """Whether a 404 is about the account; an unrouted path says "Route DELETE:/… not found"."""
    said = [body.get(name) for name in ("statusCode", "error", "message")]
    return said == [404, "Not Found", "Resource not found"]


instantly = Upstream(
    "Instantly",
    key_variable="INSTANTLY_API_KEY",
    base_url_variable="INSTANTLY_BASE_URL",
    base_url="https://api.instantly.ai",
    authenticate=lambda key: {"Authorization": f"Bearer {key}"},
    code="code",
    is_gone=_is_gone,
)


@hookimpl
def teardown_account(account: Account) -> str | None:
    address = account.instantly_account_id or account.email_address
    if not address:
        return None
    disabled = _disable_warmup(address)
    removed = instantly.delete("api", "v2", "accounts", address, tried="account delete")
    deleted = "account deleted" if removed else "account was not there"
    return f"warm-up {disabled}, {deleted}"


def _disable_warmup(address: str) -> str:
    """Try it, and go on whatever comes of it: the delete is what counts."""
    try:
        was_there = instantly.post(
            "api",
            "v2",
            "accounts",
            "warmup",
            "disable",
            payload={"emails": [address]},
            tried="warm-up disable",
            share=DISABLE_SHARE,
        )
    except TeardownFailed as error:
        return f"not disabled ({error})"
    return "disabled" if was_there else "was not there"


@hookimpl
def check_provider() -> None:
    instantly.get("api", "v2", "accounts", params={"limit": "1"}, tried="credentials check")


@hookimpl
def find_resources() -> Iterator[Resource]:
    listed = instantly.pages(
        "api",
        "v2",
        "accounts",
        items="items",
        cursor="next_starting_after",
        cursor_param="starting_after",
        limit=100,
        tried="account list",
    )
    for item in listed:
        yield resource(item, "email", created_at="timestamp_created")
