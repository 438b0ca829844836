"""Work through the ledger: a lane per plugin, a few orphans of each side by side."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from puffle_accounts import clock, context
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.orphans.ledger import Claimed, Ledger
from puffle_accounts.orphans.superseded import is_superseded
from puffle_accounts.teardown import Batch, Outcome

SIDE_BY_SIDE = 8  # calls at a time to one provider
RESULTS = ("done", "superseded", "failed", "parked")
UNREADABLE = "its snapshot cannot be read"
NOT_NOW = (401, 402, 429)  # it would answer the next call the same

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One pass over the orphans that are due as it begins; none is tried twice.

    Args:
        ledger: where they are.
        plugins: who can tear them down.
        timeout: seconds for the calls that run side by side.
        limit: orphans to try at most.
        only: the one plugin to try, `None` for all.
        parked: whether to try parked ones too.
        stop: set it to claim no more; what is under way is finished.
        progress: called after each orphan.
    """

    ledger: Ledger
    plugins: Plugins
    timeout: float
    limit: float = math.inf
    only: str | None = None
    parked: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[], object] = lambda: None
    results: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _errors: list[Exception] = field(default_factory=list)

    def work(self) -> Counter[str]:
        """Try them and return how many were `done`, `superseded`, `failed` and `parked`.

        Raises:
            Exception: what went wrong with the database, after all lanes have ended.
        """
        began = self.ledger.now()
        lanes = [
            threading.Thread(target=self._lane, args=(plugin, began), daemon=True)
            for plugin in self._concerned()
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        if self._errors:
            raise self._errors[0]
        return self.results

    def count(self) -> int:
        """Return how many orphans there are to try."""
        now, kinds = self.ledger.now(), {False, self.parked}
        due = sum(self.ledger.count(p.name, now, kind) for p in self._concerned() for kind in kinds)
        return int(min(due, self.limit))

    def _concerned(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins.active if self.only in (None, plugin.name)]

    def _lane(self, plugin: Plugin, began: datetime) -> None:
        try:
            if self._drain(plugin, began) and self.parked:
                self._drain(plugin, began, parked=True)
        except Exception as error:
            self._errors.append(error)

    def _drain(self, plugin: Plugin, began: datetime, parked: bool = False) -> bool:
        """Work until nothing is left to claim; return whether the provider went along."""
        while not self.stop.is_set():
            orphans = self._claim(plugin, began, parked)
            if not orphans:
                return True
            refused = self._try(orphans)
            if refused:
                log.warning("retry.stopped", extra={"plugin": plugin.name, "reason": refused})
                return False
        return False

    def _claim(self, plugin: Plugin, began: datetime, parked: bool) -> list[Claimed]:
        """Claim as many as may be called at once; lanes take turns, so that the limit is exact."""
        with self._lock:
            most = int(min(SIDE_BY_SIDE, plugin.bulkhead.limit, self.limit))
            orphans = self.ledger.claim(plugin.name, most, began, parked)
            self.limit -= len(orphans)
            return orphans

    def _try(self, orphans: list[Claimed]) -> str | None:
        """Call for each orphan and settle it; return why to stop asking this provider."""
        batch = Batch(time.monotonic() + self.timeout)
        started = {id(o.account): o for o in orphans if self._start(batch, o)}
        outcomes: dict[int, Outcome] = {}
        for outcome in sorted(batch.finish(), key=lambda outcome: outcome.failure is not None):
            outcomes[id(outcome.account)] = outcome  # of several hooks, one that failed
        for key, orphan in started.items():
            self._settle(orphan, outcomes[key])
        context.request_id.set(None)
        return next((o.failure for o in outcomes.values() if o.status in NOT_NOW), None)

    def _start(self, batch: Batch, orphan: Claimed) -> bool:
        context.request_id.set(orphan.request_id)
        if orphan.account is None:
            self.ledger.park(orphan, UNREADABLE)
            self._report("parked", orphan, 0, UNREADABLE)
            return False
        began = time.monotonic()
        if is_superseded(self.ledger.database, orphan.account):
            self.ledger.forget(orphan)
            self._report("superseded", orphan, clock.ms_since(began))
            return False
        for implementation in self.plugins.implementations_of(orphan.plugin, orphan.account.type):
            batch.start(implementation, orphan.account)
        return True

    def _settle(self, orphan: Claimed, outcome: Outcome) -> None:
        context.request_id.set(orphan.request_id)
        if outcome.failure is None:
            self.ledger.forget(orphan)
            self._report("done", orphan, outcome.ms)
        else:
            parked = self.ledger.postpone(orphan, outcome)
            self._report("parked" if parked else "failed", orphan, outcome.ms, outcome.failure)

    def _report(self, result: str, orphan: Claimed, ms: int, reason: str | None = None) -> None:
        event = {"superseded": "orphan.superseded", "parked": "orphan.parked"}
        fields = {
            "orphan": orphan.id,
            "plugin": orphan.plugin,
            "account": orphan.account_id,
            "user": orphan.user_id,
            "outcome": reason or result,
            "ms": ms,
        }
        level = logging.WARNING if result == "parked" else logging.INFO
        log.log(level, event.get(result, "orphan.retried"), extra=fields)
        with self._lock:
            self.results[result] += 1
            self.progress()


def repeat(run: Callable[[], Counter[str]], seconds: float, stop: threading.Event) -> None:
    """Run again and again until `stop` is set; a database that is away is waited for.

    Args:
        run: one pass.
        seconds: between the end of a pass and the next.
    """
    away = False
    while not stop.is_set():
        try:
            results = run()
        except DatabaseUnavailable as error:
            if not away:
                log.warning("database.unavailable", extra={"reason": str(error)})
            away = True
        else:
            if away:
                log.info("database.back")
            away = False
            if results.total():
                log.info("retry.pass", extra={name: results[name] for name in RESULTS})
        stop.wait(seconds)
