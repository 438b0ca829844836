"""An imaginary CRM that keeps a contact for each e-mail account: delete the contact."""

from collections.abc import Iterator

from puffle_accounts import Account, Resource, hookimpl
from puffle_accounts.upstream import Upstream, resource

ACCOUNT_TYPES = {"email"}
RESOURCE_IDS = ("metadata.example_crm_contact",)

crm = Upstream(
    "Example CRM",
    key_variable="EXAMPLE_CRM_API_KEY",
    base_url_variable="EXAMPLE_CRM_BASE_URL",
    base_url="https://api.crm.example/v1",
    authenticate=lambda key: {"Authorization": f"Bearer {key}"},
    code="code",
    is_gone=lambda body: body.get("code") == "contact_not_found",
)


@hookimpl
def teardown_account(account: Account) -> str | None:
    contact = str(account.metadata["example_crm_contact"])
    removed = crm.delete("contacts", contact, tried="contact delete")
    return "contact deleted" if removed else "contact was not there"


@hookimpl
def find_resources() -> Iterator[Resource]:
    listed = crm.pages(
        "contacts",
        items="contacts",
        cursor="next",
        cursor_param="after",
        limit=100,
        tried="contact list",
    )
    for item in listed:
        yield resource(item, "id", name="name", created_at="created_at")


@hookimpl
def check_provider() -> None:
    crm.get("contacts", params={"limit": "1"}, tried="credentials check")
