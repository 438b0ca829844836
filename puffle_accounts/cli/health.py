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
from puffle_accounts.hooks import registry
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import standing
from puffle_accounts.service import Service
from puffle_accounts.text import counted, one_line


class Finding(NamedTuple):
    """One line of the report."""

    ok: bool
    what: str
    said: str


def check(service: Service) -> Iterator[Finding]:
    """Look at the database, its tables, the plugins and each provider's credentials."""
    yield from _database(service)
    for plugin in service.plugins.all:
        yield Finding(plugin.problem is None, f"plugin {plugin.name}", plugin.state)
    yield from _providers(service.plugins.active, service.timeout)


def _database(service: Service) -> Iterator[Finding]:
    try:
        pending = [name for name, applied in schema.status(service.database) if not applied]
        if not pending:
            service.database.require_writes()
    except (DatabaseUnavailable, PeeweeException) as error:
        yield Finding(False, "database", one_line(error))
        return
    yield Finding(True, "database", f"answers{service.database.by_way_of}")
    if pending:
        hint = "run puffle-accounts db upgrade"
        yield Finding(False, "schema", f"{counted(len(pending), 'pending migration')}: {hint}")
        return
    yield Finding(True, "schema", "up to date")
    counts = standing.counts(service.database)
    yield Finding(True, "orphans", orphans_said(counts))


def orphans_said(counts: dict[str, int]) -> str:
    """Return the ledger's counts as a sentence; old parked orphans are pointed out."""
    said = f"{counted(counts['all'], 'orphan')}, {counts['parked']} of them parked"
    if counts["old"]:
        said += f"; {counts['old']} parked and older than 90 days: retry or drop them"
    return said


def _providers(active: list[Plugin], timeout: float) -> Iterator[Finding]:
    """Ask all providers at the same time; one that hangs is not waited for."""
    asked = [(f"provider {p.name}", call) for p in active for call in registry.checks(p)]
    deadline = time.monotonic() + timeout
    answers: SimpleQueue[Finding] = SimpleQueue()
    for what, call in asked:
        threading.Thread(target=_ask, args=(what, call, deadline, answers), daemon=True).start()
    waiting = [what for what, _ in asked]
    while waiting:
        try:
            finding = answers.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            break
        waiting.remove(finding.what)
        yield finding
    yield from (Finding(False, what, f"no answer within {timeout:g} s") for what in waiting)


def _ask(
    what: str, call: Callable[[], object], deadline: float, answers: SimpleQueue[Finding]
) -> None:
    context.deadline.set(deadline)
    try:
        call()
    except BaseException as error:  # whatever a plugin does
        answers.put(Finding(False, what, one_line(error) or type(error).__name__))
    else:
        answers.put(Finding(True, what, "credentials accepted"))
