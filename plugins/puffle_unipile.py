"""LinkedIn through Unipile: revoke the session.

Facts: the API reference at developer.unipile.com, "Delete an account".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from puffle_accounts import Account, Resource, hookimpl
from puffle_accounts.upstream import Upstream, resource

ACCOUNT_TYPES = {"linkedin"}
RESOURCE_IDS = ("provider_account_id",)


def _is_gone(body: Mapping[str, Any]) -> bool:
    """Whether a 404 is Unipile's: v1 names the error, v2 has an envelope of its own."""
    kind = str(body.get("type"))
    v1 = kind == "errors/resource_not_found"
    v2 = body.get("object") == "Error" and kind.startswith("api/")
    return v1 or v2


unipile = Upstream(
    "Unipile",
    key_variable="UNIPILE_API_KEY",
    base_url_variable="UNIPILE_BASE_URL",
    base_url="https://{UNIPILE_DSN}/api/v1",
    authenticate=lambda key: {"X-API-KEY": key},
    code="type",
    is_gone=_is_gone,
)


@hookimpl
def teardown_account(account: Account) -> str | None:
    if not account.provider_account_id:
        return None
    removed = unipile.delete("accounts", account.provider_account_id, tried="session revoke")
    return "session revoked" if removed else "session was not there"


@hookimpl
def check_provider() -> None:
    unipile.get("accounts", params={"limit": "1"}, tried="credentials check")


@hookimpl
def find_resources() -> Iterator[Resource]:
    """Other products of the same workspace keep mail and WhatsApp accounts there: not ours."""
    listed = unipile.pages(
        "accounts",
        items="items",
        cursor=("cursor", "next_cursor"),
        cursor_param="cursor",
        limit=250,
        tried="session list",
    )
    for item in listed:
        if item.get("type") == "LINKEDIN":
            yield resource(item, "id", name="name", created_at="created_at")
