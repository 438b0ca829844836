"""An imaginary CRM that keeps a contact for each e-mail account: delete the contact."""

from puffle_accounts import Account, hookimpl
from puffle_accounts.upstream import Upstream

ACCOUNT_TYPES = {"email"}

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
    contact = account.metadata.get("example_crm_contact")
    if not contact:
        return None
    removed = crm.delete("contacts", contact, tried="contact delete")
    return "contact deleted" if removed else "contact was not there"


@hookimpl
def check_provider() -> None:
    crm.get("contacts", params={"limit": "1"}, tried="credentials check")
