"""One provider is worked on without pause: the next call begins as soon as one has ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Queue
from typing import Any

from puffle_accounts.orphans.attempt import Attempt, Retrier
from puffle_accounts.orphans.ledger import Claimed

SIDE_BY_SIDE = 8  # calls at a time to one provider
AHEAD = 4  # claimed at once as soon as a call has ended, so that not each costs a round trip


class Lane:
    """The orphans of one provider, tried once each.

    Callers make the calls and a settler writes down what came of them, so that no caller
    waits for the ledger. Nothing more is claimed while all calls are under way: behind a
    provider that hangs, orphans are left to others.

    Args:
        claim: leases up to so many of what is left to try.
        places: calls at a time, at most.
        stop: set it to begin nothing more; what is under way is finished.
        settled: called with the result of each orphan.
    """

    def __init__(
        self,
        retrier: Retrier,
        claim: Callable[[int], list[Claimed]],
        places: int,
        stop: threading.Event,
        settled: Callable[[str], None],
    ) -> None:
        self.refused: str | None = None
        self._retrier = retrier
        self._claim = claim
        self._places = min(places, SIDE_BY_SIDE)
        self._stop = stop
        self._settled = settled
        self._claimed: deque[Claimed] = deque()
        self._claiming = threading.Lock()
        # Bounded: what waited here for longer than its lease would be called by another again.
        self._attempts: Queue[Attempt | None] = Queue(self._places)
        self._error: Exception | None = None

    def work(self) -> None:
        """Work until nothing is left to claim, or the provider has refused.

        Raises:
            Exception: what went wrong with the database, once nothing is under way any more.
        """
        first = self._claim(self._places)
        if not first:
            return
        settler = threading.Thread(target=self._settle_all, daemon=True)
        settler.start()
        callers = [
            threading.Thread(target=self._guarded, args=(self._call_from, orphan), daemon=True)
            for orphan in first
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        self._attempts.put(None)
        settler.join()
        if self._error:
            raise self._error
        self._retrier.ledger.release(self._claimed)

    def _guarded(self, work: Callable[..., None], *args: Any) -> bool:
        """Work; return whether nothing went wrong."""
        try:
            work(*args)
        except Exception as error:
            self._error = self._error or error
            return False
        return True

    def _call_from(self, orphan: Claimed | None) -> None:
        """Call for this orphan, and then for the next ones."""
        while orphan:
            attempt = self._retrier.call(orphan)
            if attempt:
                self.refused = self.refused or attempt.refused
                self._attempts.put(attempt)
            orphan = self._next()

    def _next(self) -> Claimed | None:
        with self._claiming:
            if self._stop.is_set() or self.refused or self._error:
                return None
            if not self._claimed:
                self._claimed.extend(self._claim(AHEAD))
            return self._claimed.popleft() if self._claimed else None

    def _settle_all(self) -> None:
        """Settle until the ledger fails; take in what comes afterwards, so that nobody waits."""
        well = True
        while attempt := self._attempts.get():
            well = well and self._guarded(self._settle, attempt)

    def _settle(self, attempt: Attempt) -> None:
        self._settled(self._retrier.settle(attempt))
