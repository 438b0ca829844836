"""Find the plugins that are installed, verify each, and give them their settings."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint, distributions, entry_points

from puffle_accounts import resources
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.errors import BrokenPlugin, ConfigError
from puffle_accounts.hooks.hookimpls import verify
from puffle_accounts.hooks.hookspecs import GROUP
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.text import one_line

UNDECLARED = (
    "it declares no RESOURCE_IDS: what accounts share is torn down with the first of them,"
    " and an orphan that cannot be told from a live account is parked"
)

#: An entry point, and name and version of what installed it.
Found = tuple[EntryPoint, str]

log = logging.getLogger(__name__)


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
    for point, distribution in _installed() if found is None else map(_read, found):
        named[point.name].append((point, distribution))
    for name in set(disabled) - set(named):
        log.warning("plugin.not_installed", extra={"plugin": name})
    return Plugins(
        _load(each, Bulkhead(limit), disabled=name in disabled) for name, each in named.items()
    )


def _installed() -> Iterable[Found]:
    """Return the group's entry points; a distribution that cannot be read hides no other."""
    try:
        return [*map(_read, entry_points(group=GROUP))]
    except Exception:
        return _one_by_one()


def _one_by_one() -> Iterator[Found]:
    # Slower by far, for it parses what every distribution says of itself.
    seen: set[str] = set()
    for distribution in distributions():
        try:
            if distribution.name not in seen:
                yield from map(_read, distribution.entry_points.select(group=GROUP))
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
        if plugin.tears_down and not plugin.resource_ids:
            log.warning("plugin.undeclared", extra={"plugin": plugin.name, "reason": UNDECLARED})


def _load(found: list[Found], bulkhead: Bulkhead, disabled: bool) -> Plugin:
    point, _ = found[0]
    distribution = ", ".join(name for _, name in found if name)
    plugin = Plugin(point.name, distribution, bulkhead, disabled=disabled)
    if disabled:
        return plugin
    try:
        if len(found) > 1:
            raise BrokenPlugin("two distributions have an entry point of this name")
        with redirect_stdout(sys.stderr):  # a command's output is its own
            module = point.load()
        plugin.impls = verify(module)
        plugin.resource_ids = resources.declared(module)
        plugin.module = module
    except BaseException as error:  # a SystemExit at import must not end the service
        _break(plugin, error)
    return plugin


def _read(point: EntryPoint) -> Found:
    if point.dist is None:
        return point, ""
    said = point.dist.metadata  # parsed each time
    return point, f"{said['Name']} {said['Version']}"


def _break(plugin: Plugin, error: BaseException) -> None:
    said = one_line(error)
    expected = isinstance(error, BrokenPlugin)
    plugin.problem = said if expected else f"cannot be loaded: {type(error).__name__}: {said}"
    plugin.impls, plugin.resource_ids = defaultdict(list), ()
    log.error("plugin.broken", extra={"plugin": plugin.name, "reason": plugin.problem})
