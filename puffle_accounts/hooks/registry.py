"""Find the plugins, verify each, and say what has to be called for an account."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions
from typing import Any

import pluggy

from puffle_accounts.account import Account
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.errors import BrokenPlugin, ConfigError, TeardownFailed
from puffle_accounts.hooks.hookimpls import CHECK, TEARDOWN, isolated, verify, wraps
from puffle_accounts.hooks.hookspecs import GROUP
from puffle_accounts.text import one_line
from puffle_accounts.upstream import Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation of `teardown_account`, with everybody's wrappers around it."""

    plugin: str
    call: Callable[..., Any]  # call(account=…)
    bulkhead: Bulkhead


@dataclass(eq=False, slots=True)
class Plugin:
    """One entry point, usable or not.

    Args:
        name: the entry point's.
        distribution: name and version of what installed it.
        module: what the entry point names, once it has been verified.
        problem: why it cannot be used.
        disabled: the operator took it out.
    """

    name: str
    distribution: str
    bulkhead: Bulkhead
    module: Any = None
    problem: str | None = None
    disabled: bool = False
    impls: dict[str, list[pluggy.HookImpl]] = field(default_factory=lambda: defaultdict(list))

    @property
    def state(self) -> str:
        """`ok`, `disabled`, or `broken` with the reason."""
        if self.disabled:
            return "disabled"
        return f"broken: {self.problem}" if self.problem else "ok"

    def accepts(self, account_type: str) -> bool:
        """Whether accounts of this type concern the plugin."""
        types = getattr(self.module, "ACCOUNT_TYPES", None)
        return types is None or account_type in types

    def upstreams(self) -> list[Upstream]:
        """Return the HTTP clients that the plugin holds at its top level."""
        names = getattr(self.module, "__dict__", {})  # an object with slots has none
        return [value for value in names.values() if isinstance(value, Upstream)]


class Plugins:
    """All plugins of this process.

    Args:
        plugins: verified, broken and disabled ones alike.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.all = list(plugins)
        self.active = [plugin for plugin in self.all if not plugin.disabled]
        self._implementations: dict[str, list[Implementation]] = {}

    def implementations(self, account_type: str) -> list[Implementation]:
        """Return what has to be called for an account of this type; isolated once, then kept."""
        if account_type not in self._implementations:
            self._implementations[account_type] = self._isolate(account_type)
        return self._implementations[account_type]

    def implementations_of(self, plugin: str, account_type: str) -> list[Implementation]:
        """Return those of one plugin; one that does not take the type any more must not pass."""
        found = [each for each in self.implementations(account_type) if each.plugin == plugin]
        refusal = _stand_in(f"plugin {plugin} takes no accounts of type {account_type}")
        return found or [Implementation(plugin, refusal, Bulkhead(1))]

    def _isolate(self, account_type: str) -> list[Implementation]:
        concerned = [p for p in self.active if p.problem or p.accepts(account_type)]
        wrappers = [impl for p in concerned for impl in p.impls[TEARDOWN] if wraps(impl)]
        found = []
        for plugin in concerned:
            problem = f"plugin {plugin.name} cannot be used: {plugin.problem}"
            calls: list[Callable[..., Any]] = [_stand_in(problem)] if plugin.problem else []
            calls += [
                isolated(TEARDOWN, impl, wrappers)
                for impl in plugin.impls[TEARDOWN]
                if not wraps(impl)
            ]
            found += [Implementation(plugin.name, call, plugin.bulkhead) for call in calls]
        return found


def load(
    limit: int,
    disabled: Collection[str] = (),
    found: Iterable[EntryPoint] | None = None,
) -> Plugins:
    """Load every plugin that is installed; one that cannot be used stops nobody.

    Args:
        limit: calls under way per plugin, at most.
        disabled: names that are not even imported.
        found: entry points to use instead of the installed ones.
    """
    named = defaultdict(list)
    for point in _installed() if found is None else found:
        named[point.name].append(point)
    for name in set(disabled) - set(named):
        log.warning("plugin.not_installed", extra={"plugin": name})
    return Plugins(
        _load(points, Bulkhead(limit), disabled=name in disabled) for name, points in named.items()
    )


def _installed() -> Iterator[EntryPoint]:
    """Return the group's entry points; a distribution that cannot be read hides no other.

    With one of those, `entry_points()` returns none at all.
    """
    seen: set[str] = set()
    for distribution in distributions():
        try:
            if distribution.name not in seen:
                yield from distribution.entry_points.select(group=GROUP)
            seen.add(distribution.name)
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            log.error("distribution.unreadable", extra={"reason": reason})


def configure(plugins: Plugins, environ: Mapping[str, str]) -> None:
    """Give the plugins' HTTP clients their settings; then warn of what is missing.

    Raises:
        ConfigError: a variable has a value that cannot be used.
    """
    for plugin in plugins.active:
        try:
            for upstream in plugin.upstreams():
                upstream.configure(environ)
        except ConfigError:
            raise
        except Exception as error:  # its `authenticate` may choke on the key
            _break(plugin, error)
    for plugin in plugins.active:
        for upstream in plugin.upstreams():
            if upstream.missing:
                fields = {"plugin": plugin.name, "missing": upstream.missing}
                log.warning("provider.unconfigured", extra=fields)


def _load(points: list[EntryPoint], bulkhead: Bulkhead, disabled: bool) -> Plugin:
    distribution = ", ".join(f"{p.dist.name} {p.dist.version}" for p in points if p.dist)
    plugin = Plugin(points[0].name, distribution, bulkhead, disabled=disabled)
    if disabled:
        return plugin
    try:
        if len(points) > 1:
            raise BrokenPlugin("two distributions have an entry point of this name")
        with redirect_stdout(sys.stderr):  # a command's output is its own
            module = points[0].load()
        plugin.impls = verify(module)
        plugin.module = module
    except BaseException as error:  # a SystemExit at import must not end the service
        _break(plugin, error)
    return plugin


def _break(plugin: Plugin, error: BaseException) -> None:
    said = one_line(error)
    expected = isinstance(error, BrokenPlugin)
    plugin.problem = said if expected else f"cannot be loaded: {type(error).__name__}: {said}"
    plugin.impls = defaultdict(list)
    log.error("plugin.broken", extra={"plugin": plugin.name, "reason": plugin.problem})


def checks(plugin: Plugin) -> list[Callable[..., Any]]:
    """Return the plugin's implementations of `check_provider`."""
    return [isolated(CHECK, impl, []) for impl in plugin.impls[CHECK] if not wraps(impl)]


def _stand_in(reason: str) -> Callable[..., Any]:
    def fail(account: Account) -> None:
        raise TeardownFailed(reason)

    return fail
