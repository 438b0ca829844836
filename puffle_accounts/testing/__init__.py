"""The kit for plugin authors' tests: a call as the service makes it, a fake provider, and more.

def test_it_deletes_the_contact(monkeypatch):
    with FakeProvider() as provider:
        monkeypatch.setenv("EXAMPLE_API_KEY", "any")
        monkeypatch.setenv("EXAMPLE_BASE_URL", provider.url)
        provider.answer(200)
        result = call(my_plugin, account(metadata={"contact": "c-1"}))
        assert result.said == "contact deleted"
        assert provider.requests[0].path == "/contacts/c-1"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.testing.calls import Result, account, call, check, holdings
from puffle_accounts.testing.provider import FakeProvider, Reply, Request

if TYPE_CHECKING:
    from puffle_accounts.testing.conformance import PluginConformance

__all__ = [
    "BrokenPlugin",
    "FakeProvider",
    "PluginConformance",
    "Reply",
    "Request",
    "Result",
    "account",
    "call",
    "check",
    "holdings",
]


def __getattr__(name: str) -> Any:
    """Import what needs pytest when it is asked for: `call` and the others do without."""
    if name != "PluginConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from puffle_accounts.testing.conformance import PluginConformance

    return PluginConformance
