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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.testing.calls import Result, account, call, check, holdings
from puffle_accounts.testing.provider import FakeProvider, Reply, Request

if TYPE_CHECKING:
    from puffle_accounts.testing.application import PluginService
    from puffle_accounts.testing.conformance import PluginConformance

#: What is imported when it is asked for: it needs pytest, or the whole application.
_LATER = {"PluginConformance": "conformance", "PluginService": "application"}

__all__ = [
    "BrokenPlugin",
    "FakeProvider",
    "PluginConformance",
    "PluginService",
    "Reply",
    "Request",
    "Result",
    "account",
    "call",
    "check",
    "holdings",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
