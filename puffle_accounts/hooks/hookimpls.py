"""What a plugin implements: verify each implementation, and isolate it from the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from types import ModuleType
from typing import Any

import pluggy

from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.hooks import hookspecs
from puffle_accounts.hooks.hookspecs import GROUP

TEARDOWN, CHECK, FIND = "teardown_account", "check_provider", "find_resources"
HOOKS = (TEARDOWN, CHECK, FIND)


def verify(module: Any) -> dict[str, list[pluggy.HookImpl]]:
    """Return the implementations of each hook in a module or object.

    Looks in a manager of its own, since pluggy's checks are about a whole manager.

    Raises:
        BrokenPlugin: it could never be called as it should be.
    """
    manager = _manager(HOOKS)
    try:
        manager.register(module)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError, TypeError) as error:
        raise BrokenPlugin(str(error)) from error
    impls = {name: getattr(manager.hook, name).get_hookimpls() for name in HOOKS}
    if not impls[TEARDOWN]:
        raise BrokenPlugin(f"implements no {TEARDOWN}; is it marked with @hookimpl?")
    for name, found in impls.items():
        for impl in found:
            _verify_callable(name, impl)
    types = getattr(module, "ACCOUNT_TYPES", ())
    usable = isinstance(types, Collection) and not isinstance(types, str)
    if not usable or not all(isinstance(name, str) for name in types):
        raise BrokenPlugin('ACCOUNT_TYPES must be a set of strings such as {"email"}')
    return impls


def _verify_callable(name: str, impl: pluggy.HookImpl) -> None:
    function = impl.function
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise BrokenPlugin(f"{name} is a coroutine, it would never run; use a plain function")
    if inspect.isgeneratorfunction(function) and not (wraps(impl) or name == FIND):
        raise BrokenPlugin(f"{name} is a generator, it would never run; use a plain function")
    if name == TEARDOWN and "account" not in impl.argnames and not wraps(impl):
        raise BrokenPlugin(f"{name} has a wrong signature: it must take account, without a default")
    try:
        inspect.signature(function).bind(*impl.argnames)  # pluggy passes nothing by keyword
    except TypeError as error:
        raise BrokenPlugin(f"{name} has a wrong signature: {error}") from error


def wraps(impl: pluggy.HookImpl) -> bool:
    """Whether this implementation is one around others."""
    return impl.wrapper or impl.hookwrapper


def _manager(names: Iterable[str]) -> pluggy.PluginManager:
    """Return one that knows these hooks."""
    specs = ModuleType("hookspecs")
    for name in names:
        setattr(specs, name, getattr(hookspecs, name))
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(specs)
    return manager


def isolated(
    name: str, impl: pluggy.HookImpl, wrappers: list[pluggy.HookImpl]
) -> Callable[..., Any]:
    """Return a hook caller with this implementation alone and the wrappers around it.

    pluggy's own `hook.x()` stops at the first exception, and its
    `subset_hook_caller` without a plugin loses that plugin's wrappers too.
    """
    manager = _manager([name])
    for each in (*wrappers, impl):
        holder = ModuleType(each.plugin_name)  # equal to no other, even if it holds the same
        setattr(holder, name, each.function)
        manager.register(holder, str(id(holder)))
    caller: pluggy.HookCaller = getattr(manager.hook, name)
    return caller
