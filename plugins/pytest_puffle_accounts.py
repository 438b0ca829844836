"""pytest's plugin for the tests of plugins: what it needs is imported by the test that asks for it.

A module of its own at the top, since pytest imports it in every run of every project: nothing of
`puffle_accounts` may come along, for it would slow the run and escape a measurement of coverage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from puffle_accounts import Account
    from puffle_accounts.testing import FakeProvider, PluginService, Result


@pytest.fixture
def fake_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """A provider on loopback, `puffle_accounts.testing.FakeProvider`.

    It answers as it is told, keeps what it was asked in `requests`, listens at `url`, and at a
    word refuses, resets, breaks off, drips, cuts a body, redirects, hangs or sends garbage. No
    proxy stands between.
    """
    from puffle_accounts.testing import FakeProvider

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def teardown(fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call a plugin as the service does: `teardown(plugin, account, seconds=10.0)`.

    The plugin's `Upstream`s are pointed at `fake_provider`, with a key, but for variables that
    are set already. The `Result` has what was `said`, or the `failure` with `retry_after` and
    `permanent`, scrubbed as the service scrubs it.
    """
    from puffle_accounts.testing import call

    def teardown(plugin: Any, account: Account, seconds: float = 10.0) -> Result:
        _point(plugin, fake_provider, monkeypatch)
        return call(plugin, account, seconds)

    return teardown


@pytest.fixture
def service(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., PluginService]]:
    """Make the real application with one plugin alone: `service(plugin, timeout=10.0)`.

    On a temporary database, and with the plugin's `Upstream`s pointed as by `teardown`. It has
    `add(account)` or `add(type=…, metadata={…})` for accounts, `delete(account)` to send a
    DELETE, `orphans()` to look at what was left behind, and `retry()` to try it again.
    """
    from puffle_accounts.testing import PluginService
    from puffle_accounts.testing.application import undisturbed

    made: list[PluginService] = []

    def service(plugin: Any, timeout: float = 10.0) -> PluginService:
        _point(plugin, fake_provider, monkeypatch)
        folder = tmp_path / f"service-{len(made)}"
        folder.mkdir()
        made.append(PluginService(plugin, folder, timeout))
        return made[-1]

    with undisturbed():
        yield service
        for each in made:
            each.close()


def _point(plugin: Any, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a plugin's clients that are not set."""
    from puffle_accounts.testing.calls import KEY, set_variables, settings

    unset = {
        name: value
        for name, value in settings(plugin, provider.url, KEY).items()
        if not (os.environ.get(name) or os.environ.get(f"{name}_FILE"))
    }
    set_variables(unset, monkeypatch)
