"""E-mail inboxes through AgentMail: delete the inbox, which destroys its mail.

Facts: the API reference at docs.agentmail.to, "Delete Inbox".
"""

from __future__ import annotations

from collections.abc import Iterator

from puffle_accounts import Account, Resource, hookimpl
from puffle_accounts.upstream import Upstream, resource

ACCOUNT_TYPES = {"email"}
RESOURCE_IDS = ("agentmail_inbox_id",)

agentmail = Upstream(
    "AgentMail",
    key_variable="AGENTMAIL_API_KEY",
    base_url_variable="AGENTMAIL_BASE_URL",
    base_url="https://api.agentmail.to",
    authenticate=lambda key: {"Authorization": f"Bearer {key}"},
    code="code",
    is_gone=lambda body: body.get("code") == "not_found",
    # 403, yet they pass: a delete under way, and something that still depends on the inbox.
    temporary_codes=frozenset({"resource_deleting", "cannot_delete"}),
)


@hookimpl
def teardown_account(account: Account) -> str | None:
    if not account.agentmail_inbox_id:
        return None
    removed = agentmail.delete("v0", "inboxes", account.agentmail_inbox_id, tried="inbox delete")
    return "inbox deleted" if removed else "inbox was not there"


@hookimpl
def check_provider() -> None:
    agentmail.get("v0", "inboxes", params={"limit": "1"}, tried="credentials check")


@hookimpl
def find_resources() -> Iterator[Resource]:
    listed = agentmail.pages(
        "v0",
        "inboxes",
        items="inboxes",
        cursor="next_page_token",
        cursor_param="page_token",
        limit=100,
        tried="inbox list",
    )
    for item in listed:
        yield resource(item, "inbox_id", name="display_name", created_at="created_at")
