"""E-mail accounts at Smartlead: delete the account, which ends its warm-up and its campaigns.

Facts: the API reference at api.smartlead.ai, "Delete Email Account", "Get All Email Accounts",
"Error Handling" and "Rate Limits".
"""

from __future__ import annotations

from collections.abc import Iterator

from puffle_accounts import Account, Resource, hookimpl
from puffle_accounts.upstream import Upstream, in_query, resource

ACCOUNT_TYPES = {"email"}
RESOURCE_IDS = ("metadata.smartlead_email_account_id",)


smartlead = Upstream(
    "Smartlead",
    key_variable="SMARTLEAD_API_KEY",
    base_url_variable="SMARTLEAD_BASE_URL",
    base_url="https://server.smartlead.ai/api/v1",
    authenticate=in_query("api_key"),
    code="error.code",
    is_gone=lambda body: body["error"]["code"] == "NOT_FOUND",
    retry_after="error.retry_after",
)


@hookimpl
def teardown_account(account: Account) -> str:
    account_id = str(account.metadata["smartlead_email_account_id"])
    removed = smartlead.delete("email-accounts", account_id, tried="account delete")
    return "account deleted" if removed else "account was not there"


@hookimpl
def find_resources() -> Iterator[Resource]:
    listed = smartlead.pages(
        "email-accounts", items=None, offset_param="offset", limit=100, tried="account list"
    )
    for item in listed:
        yield resource(item, "id", name="from_email", created_at="created_at")


@hookimpl
def check_provider() -> None:
    smartlead.get("email-accounts", params={"limit": "1"}, tried="credentials check")
