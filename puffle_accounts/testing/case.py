"""What an author says of a plugin, and how it is tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from puffle_accounts import resources
from puffle_accounts.account import Account
from puffle_accounts.testing.calls import KEY, Result, call, set_variables, settings
from puffle_accounts.testing.provider import FakeProvider, Reply

HTML = Reply(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})


class Case:
    """The plugin under proof; `PluginConformance` says what each attribute is."""

    plugin: Any
    theirs: Account
    not_theirs: Account | tuple[Account, ...]
    key_variable: str
    done: Reply
    gone: Reply | tuple[Reply, ...]

    first: tuple[Reply, ...] = ()
    before: tuple[Reply, ...] = ()
    temporary: tuple[Reply, ...] = ()
    permanent: tuple[Reply, ...] = ()
    pages: tuple[Reply, ...] = ()
    listed: tuple[str, ...] = ()
    accepted: Reply | None = None
    base_url_variable: str | None = None
    key: str = KEY
    patience: float = 0.4

    provider: FakeProvider
    monkeypatch: pytest.MonkeyPatch

    @pytest.fixture(autouse=True)
    def _set_up(self, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
        self.provider, self.monkeypatch = fake_provider, monkeypatch
        values = settings(self.plugin, fake_provider.url, self.key)
        values[self.key_variable] = self.key
        if self.base_url_variable:
            values[self.base_url_variable] = fake_provider.url
        set_variables(values, monkeypatch)

    def _try(self, *replies: Reply, of: Account | None = None, seconds: float = 10.0) -> Result:
        """Call the plugin once, with these answers to what it asks after `before`."""
        self._begin().reply(*replies)
        return self._again(seconds, of)

    def _begin(self) -> FakeProvider:
        """Let the provider answer what is asked before the call that counts."""
        return self.provider.forget().reply(*self.first, *self.before)

    def _again(self, seconds: float = 10.0, of: Account | None = None) -> Result:
        """Call the plugin, with whatever the provider has been told."""
        return call(self.plugin, of or self.theirs, seconds)

    @property
    def _gone(self) -> tuple[Reply, ...]:
        return self.gone if isinstance(self.gone, tuple) else (self.gone,)

    @property
    def _others(self) -> tuple[Account, ...]:
        return self.not_theirs if isinstance(self.not_theirs, tuple) else (self.not_theirs,)

    @property
    def _fields(self) -> tuple[str, ...]:
        return resources.declared(self.plugin)

    def _naming(self, field: str, value: Any) -> Account:
        """Return the account with one of the plugin's ids, and none in its other fields."""
        account = self.theirs
        for each in self._fields:
            account = _with(account, each, value if each == field else None)
        return account

    def _ids(self) -> Iterator[tuple[str, Any]]:
        """Return each field of the plugin's with an id of the kind that it has."""
        values = {field: _value(self.theirs, field) for field in self._fields}
        usual = next((value for value in values.values() if value is not None), None)
        assert usual is not None, f"theirs has none of RESOURCE_IDS {self._fields}"
        for field, value in values.items():
            yield field, usual if value is None else value


def left_for_later(result: Result, case: object) -> None:
    """Hold a failure to be one that is tried again."""
    assert result.failure, f"{case}: something is left, and it said {result.said!r}"
    assert not result.permanent, f"{case}: it will pass, so it is not permanent: {result.failure}"


def left_for_good(result: Result, case: object) -> None:
    """Hold a failure to be one that is parked."""
    assert result.failure, f"{case}: something is left, and it said {result.said!r}"
    assert result.permanent, f"{case}: it will not pass, so it is permanent: {result.failure}"


def _with(account: Account, field: str, value: Any) -> Account:
    key = resources.metadata_key(field)
    if key is None:
        return replace(account, **{field: value})
    rest = {name: each for name, each in account.metadata.items() if name != key}
    return replace(account, metadata=rest if value is None else {**rest, key: value})


def _value(account: Account, field: str) -> Any:
    key = resources.metadata_key(field)
    return getattr(account, field) if key is None else account.metadata.get(key)
