"""Make an account, and call a plugin with it as the service does."""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from puffle_accounts import context, resources, teardown
from puffle_accounts.account import Account
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.environment import FILE
from puffle_accounts.hooks import hookimpls, loading, registry
from puffle_accounts.hooks.hookspecs import GROUP
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.resources import Resource
from puffle_accounts.text import hide_secrets_of, said
from puffle_accounts.upstream import ClientCredentials

if TYPE_CHECKING:
    import pytest

KEY = "k+y/of=the-tests"  # another text in a URL, and nothing that a header could not carry
UNREGISTERED = "plugin-under-test"
CALLS = 8  # at a time


def account(**values: Any) -> Account:
    """Return an account to tear down: an e-mail account, but for what `values` say."""
    now = datetime.now(timezone.utc)
    defaults: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "user_id": str(uuid.uuid4()),
        "type": "email",
        "status": "connected",
        "created_at": now,
        "updated_at": now,
    }
    return Account(**{**defaults, **values})


@dataclass(frozen=True, slots=True)
class Result:
    """What the service would make of a call.

    Args:
        said: what the plugin says it did, `None` if it had nothing to do.
        failure: what is left, `None` if nothing is.
        retry_after: seconds that the plugin asked to wait.
        permanent: whether retries would be pointless.
    """

    said: str | None
    failure: str | None
    retry_after: float
    permanent: bool


def call(plugin: Any, account: Account, seconds: float = 10.0) -> Result:
    """Verify a plugin and call it with an account, isolated, as the service does.

    Its HTTP clients read the environment's variables afresh, and what it says is scrubbed of
    their secrets as the service scrubs it.

    Args:
        plugin: a module, or an object with methods that are marked with `@hookimpl`.
        account: what to tear down.
        seconds: the teardown deadline.

    Raises:
        BrokenPlugin: the service could not use the plugin.
    """
    only = alone(plugin)
    implementations = only.concerned(account) if only.all[0].accepts(account.kind) else []
    outcomes = teardown.call_all(implementations, account, time.monotonic() + seconds)
    failed = next((outcome for outcome in outcomes if outcome.failure), None)
    said = next((outcome.said for outcome in outcomes if outcome.said), None)
    return Result(
        said=said,
        failure=failed.failure if failed else None,
        retry_after=failed.retry_after if failed else 0.0,
        permanent=bool(failed and failed.permanent),
    )


def check(plugin: Any, seconds: float = 10.0) -> str | None:
    """Call a plugin's `check_provider`; return what it raised in a line, `None` if nothing.

    Args:
        plugin: as for `call`.
        seconds: the deadline, as `puffle-accounts check` sets one.

    Raises:
        BrokenPlugin: the service could not use the plugin.
    """
    asks = registry.checks(alone(plugin).all[0])
    token = context.deadline.set(time.monotonic() + seconds)
    try:
        for ask in asks:
            ask()
    except Exception as error:
        return said(error)
    finally:
        context.deadline.reset(token)
    return None


def holdings(plugin: Any) -> Iterator[Resource]:
    """Return what a plugin's `find_resources` says that its provider holds.

    Raises:
        BrokenPlugin: the service could not use the plugin.
        TeardownFailed: the provider could not be asked.
    """
    return registry.holdings(alone(plugin).all[0])


def settings(plugin: Any, url: str, key: str) -> dict[str, str]:
    """Return the variables that point a plugin's clients to a URL, with a key."""
    found: dict[str, str] = {}
    for client in Plugin(UNREGISTERED, "", Bulkhead(CALLS), plugin).upstreams():
        found |= {client._base_url_variable: url, client._key_variable: key}
        how = client._authenticate
        if isinstance(how, ClientCredentials):
            found |= {how.token_url_variable: f"{url}/token", how.client_id_variable: "tests"}
    return found


def set_variables(values: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables, and let none of them be given by a file too."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(f"{name}{FILE}", raising=False)


def alone(plugin: Any) -> Plugins:
    """Return a plugin, verified and with its clients configured, as all that there are.

    Raises:
        BrokenPlugin: the service could not use the plugin.
    """
    impls = hookimpls.verify(plugin)
    fields = resources.declared(plugin)
    bulkhead = Bulkhead(CALLS)
    only = Plugins([Plugin(_name(plugin), "", bulkhead, plugin, resource_ids=fields, impls=impls)])
    hide_secrets_of(os.environ)
    loading.configure(only, os.environ)
    return only


def _name(plugin: Any) -> str:
    """Return the name by which a module is registered: the log and the ledger are to show it."""
    return _registered().get(getattr(plugin, "__name__", ""), UNREGISTERED)


@functools.cache  # to look costs ten times what a call does, and a test makes many
def _registered() -> dict[str, str]:
    return {point.value: point.name for point in entry_points(group=GROUP)}
