"""All plugins, and what has to be called for an account."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pluggy

from puffle_accounts import resources
from puffle_accounts.account import Account, kind
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.errors import PluginFault, TeardownFailed
from puffle_accounts.hooks.hookimpls import CHECK, FIND, TEARDOWN, isolated, wraps
from puffle_accounts.resources import Resource
from puffle_accounts.text import one_line
from puffle_accounts.upstream import Upstream

#: The account types that a plugin takes (`None` for all), and its `RESOURCE_IDS`.
Declaration = tuple[frozenset[str] | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation of `teardown_account`, with everybody's wrappers around it."""

    plugin: str
    call: Callable[..., Any]  # call(account=…)
    bulkhead: Bulkhead
    resource_ids: tuple[str, ...] = ()

    def concerns(self, account: Account) -> bool:
        """Whether the account names anything that the plugin may hold."""
        return not self.resource_ids or bool(resources.named(account, self.resource_ids))


@dataclass(eq=False, slots=True)
class Plugin:
    """One entry point, usable or not.

    Args:
        name: the entry point's.
        distribution: name and version of what installed it.
        module: what the entry point names, once it has been verified.
        resource_ids: the fields of an account that name what the plugin holds.
        problem: why it cannot be used.
        disabled: the operator took it out.
    """

    name: str
    distribution: str
    bulkhead: Bulkhead
    module: Any = None
    resource_ids: tuple[str, ...] = ()
    problem: str | None = None
    disabled: bool = False
    impls: dict[str, list[pluggy.HookImpl]] = field(default_factory=lambda: defaultdict(list))

    @property
    def state(self) -> str:
        """`ok`, `disabled`, or `broken` with the reason."""
        if self.disabled:
            return "disabled"
        return f"broken: {self.problem}" if self.problem else "ok"

    @property
    def kinds(self) -> frozenset[str] | None:
        """The account types that the plugin takes, `None` if it takes all."""
        types = getattr(self.module, "ACCOUNT_TYPES", None)
        return None if types is None else frozenset(map(kind, types))

    def accepts(self, account_kind: str) -> bool:
        """Whether accounts of this type concern the plugin."""
        return self.kinds is None or account_kind in self.kinds

    @property
    def tears_down(self) -> bool:
        """Whether it holds anything itself, and is not only around others."""
        return any(not wraps(impl) for impl in self.impls[TEARDOWN])

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

    @functools.cached_property
    def declarations(self) -> tuple[Declaration, ...]:
        """What the plugins say they hold."""
        return tuple((p.kinds, p.resource_ids) for p in self.active if p.resource_ids)

    @functools.cached_property
    def metadata_fields(self) -> tuple[str, ...]:
        """The keys of `metadata` that count as ids, as fields."""
        fields = {field for _, declared in self.declarations for field in declared}
        return tuple(sorted(filter(resources.metadata_key, fields)))

    @property
    def variables(self) -> list[str]:
        """The environment variables of their HTTP clients."""
        return [name for p in self.active for each in p.upstreams() for name in each.variables]

    def find(self, name: str) -> Plugin | None:
        """Return the active plugin of this name."""
        return next((plugin for plugin in self.active if plugin.name == name), None)

    def concerned(self, account: Account) -> list[Implementation]:
        """Return what has to be called for an account."""
        return [each for each in self._of_kind(account.kind) if each.concerns(account)]

    def _of_kind(self, account_kind: str) -> list[Implementation]:
        """Return the implementations for accounts of a type; isolated once, then kept."""
        if account_kind not in self._implementations:
            self._implementations[account_kind] = self._isolate(account_kind)
        return self._implementations[account_kind]

    def _isolate(self, account_kind: str) -> list[Implementation]:
        working = [plugin for plugin in self.active if not plugin.problem]
        found = [
            _failing(p, f"plugin {p.name} cannot be used: {p.problem}")
            for p in self.active
            if p.problem
        ]
        concerned = [plugin for plugin in working if plugin.accepts(account_kind)]
        wrappers = [impl for p in concerned for impl in p.impls[TEARDOWN] if wraps(impl)]
        calls = [
            Implementation(p.name, isolated(TEARDOWN, impl, wrappers), p.bulkhead, p.resource_ids)
            for p in concerned
            for impl in p.impls[TEARDOWN]
            if not wraps(impl)
        ]
        if not calls:  # nobody's type, perhaps with somebody's ids
            said = f"no plugin takes accounts of type {one_line(account_kind)}"
            calls = [_failing(p, said, permanent=True) for p in working if p.resource_ids]
        return found + calls


def checks(plugin: Plugin) -> list[Callable[..., Any]]:
    """Return the plugin's implementations of `check_provider`."""
    return [isolated(CHECK, impl, []) for impl in plugin.impls[CHECK] if not wraps(impl)]


def holdings(plugin: Plugin) -> Iterator[Resource]:
    """Return what the plugin's provider holds, as its implementations of `find_resources` say.

    Raises:
        Exception: whatever the plugin raises.
        PluginFault: it gave something else.
    """
    for impl in plugin.impls[FIND]:
        if not wraps(impl):
            for resource in isolated(FIND, impl, [])():
                if not isinstance(resource, Resource) or resources.comparable(resource.id) is None:
                    raise PluginFault(f"{FIND} gave what is no Resource with an id")
                yield resource


def _failing(plugin: Plugin, reason: str, permanent: bool = False) -> Implementation:
    """Return what stands for a plugin that cannot be called."""

    def fail(account: Account) -> None:
        raise TeardownFailed(reason, permanent=permanent)

    return Implementation(plugin.name, fail, plugin.bulkhead, plugin.resource_ids)
