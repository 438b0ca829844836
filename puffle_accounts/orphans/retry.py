"""Work through the ledger: a pass over all that is due, once or again and again."""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans.attempt import RESULTS, Retrier
from puffle_accounts.orphans.lane import Lane
from puffle_accounts.orphans.ledger import Claimed

log = logging.getLogger(__name__)

# The kernel may give a signal to any thread, as it does once a process that stood still goes on;
# Python calls the handler in the main thread, when that goes on. So it never waits for long.
LOOK = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Scope:
    """Which orphans to try.

    Args:
        plugins: of these plugins.
        parked: the parked ones too.
        limit: at most so many in a pass.
    """

    plugins: list[Plugin]
    parked: bool = False
    limit: float = math.inf


class Pass:
    """One pass over the orphans that are due as it begins; none is tried twice.

    Args:
        stop: set it to begin nothing more; what is under way is finished.
        progress: called after each orphan.
    """

    def __init__(
        self,
        retrier: Retrier,
        scope: Scope,
        stop: threading.Event,
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self.results: Counter[str] = Counter()
        self._retrier = retrier
        self._scope = scope
        self._stop = stop
        self._progress = progress
        self._left = scope.limit
        self._lock = threading.Lock()
        self._began = retrier.ledger.now()

    def count(self) -> int:
        """Return how many orphans there are to try."""
        count, kinds = self._retrier.ledger.count, {False, self._scope.parked}
        due = sum(count(p.name, self._began, kind) for p in self._scope.plugins for kind in kinds)
        return int(min(due, self._scope.limit))

    def work(self) -> Counter[str]:
        """Try them, each provider's beside the others'; return how many ended in which result.

        Raises:
            Exception: what went wrong with the database, after all lanes have ended.
        """
        side_by_side(self._work_on, self._scope.plugins)
        return self.results

    def _work_on(self, plugin: Plugin) -> None:
        for parked in (False, True) if self._scope.parked else (False,):
            lane = Lane(
                self._retrier,
                functools.partial(self._claim, plugin, parked),
                plugin.bulkhead.limit,
                self._stop,
                self._count,
            )
            lane.work()
            if lane.refused:
                fields = {"plugin": plugin.name, "reason": lane.refused}
                log.warning("retry.stopped", extra=fields)
                return

    def _claim(self, plugin: Plugin, parked: bool, most: int) -> list[Claimed]:
        """Claim the next few; lanes take turns, so that the limit is exact."""
        with self._lock:
            most = int(min(most, self._left))
            claimed = self._retrier.ledger.claim(plugin.name, most, self._began, parked)
            self._left -= len(claimed)
            return claimed

    def _count(self, result: str) -> None:
        with self._lock:
            self.results[result] += 1
            self._progress()


def side_by_side(work: Callable[[Plugin], None], plugins: list[Plugin]) -> None:
    """Do the same for each plugin in a thread of its own.

    Raises:
        Exception: the first that one of them raised, once all have ended.
    """
    errors: list[Exception] = []

    def do(plugin: Plugin) -> None:
        try:
            work(plugin)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(each,), daemon=True) for each in plugins]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(LOOK)
    if errors:
        raise errors[0]


class Repetition:
    """Pass after pass until `stop` is set, each plugin's at its own pace.

    A provider that hangs holds up no other's next pass. A database that is away is waited
    for; any other error ends the repetition.

    Args:
        seconds: between the end of a pass and the next.
    """

    def __init__(
        self, retrier: Retrier, scope: Scope, seconds: float, stop: threading.Event
    ) -> None:
        self._retrier = retrier
        self._scope = scope
        self._seconds = seconds
        self._stop = stop
        self._lock = threading.Lock()
        self._away = False

    def work(self) -> None:
        """Repeat.

        Raises:
            Exception: what ended it before its time.
        """
        side_by_side(self._repeat, self._scope.plugins)

    def _repeat(self, plugin: Plugin) -> None:
        scope = Scope([plugin], self._scope.parked, self._scope.limit)
        try:
            while not self._stop.is_set():
                self._pass(plugin, scope)
                self._stop.wait(self._seconds)
        except BaseException:
            self._stop.set()  # the others too: a command that works for some is hard to notice
            raise

    def _pass(self, plugin: Plugin, scope: Scope) -> None:
        try:
            results = Pass(self._retrier, scope, self._stop).work()
        except DatabaseUnavailable as error:
            if self._became(away=True):
                log.warning("database.unavailable", extra={"reason": str(error)})
            return
        if self._became(away=False):
            log.info("database.back")
        if results.total():
            counted = {name: results[name] for name in RESULTS}
            log.info("retry.pass", extra={"plugin": plugin.name, **counted})

    def _became(self, away: bool) -> bool:
        """Whether the database is away, or back, only now: each is said once."""
        with self._lock:
            changed, self._away = self._away != away, away
            return changed
