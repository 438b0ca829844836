"""The contract between the service and its plugins.

A plugin is a module (or object) with an entry point in the group
`puffle_accounts`. It may also carry `ACCOUNT_TYPES`, a set of account types
such as `{"email"}`: accounts of other types then never reach it. And it should
carry `RESOURCE_IDS`, the fields of an account that name what it holds, such as
`("instantly_account_id", "metadata.crm_contact_id")`: an account that names
nothing then never reaches it, and what two accounts share is spared.
"""

from __future__ import annotations

from collections.abc import Iterator

import pluggy

from puffle_accounts.account import Account
from puffle_accounts.resources import Resource

GROUP = "puffle_accounts"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec(firstresult=True)
def teardown_account(account: Account) -> str | None:
    """Remove whatever your provider still holds for this account.

    Called before the account's row changes, and again on every retry until
    you succeed: a resource that is already gone is a success. Ignore accounts
    that are not yours.

    Return `None` when there was nothing to do, or a short text saying what was
    done ("session revoked"). Raise `TeardownFailed` when something is left; any
    other exception, and any other return value, counts the same.
    """


@hookspec(firstresult=True)
def check_provider() -> None:
    """Ask your provider something harmless with the configured credentials.

    Raise if they are missing or refused. Called by `puffle-accounts check`,
    never while a request is served.
    """


@hookspec(firstresult=True)
def find_resources() -> Iterator[Resource]:
    """Return everything that your provider holds under the configured credentials.

    A generator, page by page. Raise when the provider cannot be asked: a list that
    was read in part would look like a clean one. Called by `puffle-accounts
    orphans find`, never while a request is served.
    """
    return iter(())
