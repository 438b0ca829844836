"""Is everything there that a DELETE needs? Behind `puffle-accounts check`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import NamedTuple

from peewee import PeeweeException

from puffle_accounts import context
from puffle_accounts.database import schema
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.hooks import faults, registry
from puffle_accounts.hooks.hookimpls import CHECK
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import standing
from puffle_accounts.service import Service
from puffle_accounts.text import counted, one_line, said


class Finding(NamedTuple):
    """One line of the report; what is only doubtful keeps nobody from working."""

    ok: bool
    what: str
    said: str
    doubtful: bool = False

    @property
    def state(self) -> str:
        """`ok`, `warn` or `fail`."""
        return "fail" if not self.ok else "warn" if self.doubtful else "ok"


def check(service: Service, local: bool = False) -> Iterator[Finding]:
    """Look at the database, its tables, the plugins and each provider's credentials.

    Args:
        local: ask no provider.
    """
    yield from _database(service)
    for plugin in service.plugins.all:
        yield Finding(plugin.problem is None, f"plugin {plugin.name}", plugin.state)
    if not local:
        yield from _providers(service.plugins.active, service.timeout)


def _database(service: Service) -> Iterator[Finding]:
    try:
        flaws, said = list(schema.flaws(service.database)), schema.versions(service.database).said
        if not flaws:
            service.database.require_writes()
    except (DatabaseUnavailable, PeeweeException) as error:
        yield Finding(False, "database", one_line(error))
        return
    yield Finding(True, "database", f"answers{service.database.by_way_of}")
    for flaw in flaws:
        yield Finding(False, "schema", flaw)
    if flaws:
        return
    yield Finding(True, "schema", said)
    counts = standing.counts(service.database)
    yield Finding(True, "orphans", orphans_said(counts), doubtful=bool(counts["old"]))


def orphans_said(counts: dict[str, int]) -> str:
    """Return the ledger's counts as a sentence; old parked orphans are pointed out."""
    said = f"{counted(counts['all'], 'orphan')}, {counts['parked']} of them parked"
    if counts["old"]:
        said += f"; {counts['old']} parked and older than 90 days: retry or drop them"
    return said


def _providers(active: list[Plugin], timeout: float) -> Iterator[Finding]:
    """Ask all providers at the same time; one that hangs is not waited for."""
    asked = [(plugin.name, call) for plugin in active for call in registry.checks(plugin)]
    deadline = time.monotonic() + timeout
    answers: SimpleQueue[Finding] = SimpleQueue()
    for name, call in asked:
        threading.Thread(target=_ask, args=(name, call, deadline, answers), daemon=True).start()
    waiting = [_title(name) for name, _ in asked]
    while waiting:
        try:
            finding = answers.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            break
        waiting.remove(finding.what)
        yield finding
    yield from (Finding(False, what, f"no answer within {timeout:g} s") for what in waiting)


def _title(plugin: str) -> str:
    return f"provider {plugin}"


def _ask(
    plugin: str, call: Callable[[], object], deadline: float, answers: SimpleQueue[Finding]
) -> None:
    context.deadline.set(deadline)
    try:
        call()
    except BaseException as error:  # whatever a plugin does
        if faults.is_fault(error):
            faults.report(error, CHECK, {"plugin": plugin, "outcome": said(error)})
        answers.put(Finding(False, _title(plugin), said(error)))
    else:
        answers.put(Finding(True, _title(plugin), "credentials accepted"))
