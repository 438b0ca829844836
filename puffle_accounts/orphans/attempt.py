"""One more attempt at one orphan: look whether it still counts, call its plugin, settle it."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, replace

from peewee import DataError, PeeweeException

from puffle_accounts import clock, context, resources, teardown
from puffle_accounts.account import ID_COLUMNS
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.orphans.ledger import Claimed, Ledger
from puffle_accounts.orphans.superseded import UNDECIDED, Verdict, look
from puffle_accounts.teardown import Outcome
from puffle_accounts.telemetry import telemetry
from puffle_accounts.telemetry.silent import NOBODY, Attributes, Span
from puffle_accounts.text import one_line

RESULTS = ("done", "superseded", "failed", "parked")
UNREADABLE = "its snapshot cannot be read"
UNUSABLE = "an id in its snapshot holds what no provider's id does: a NUL or half a character"
UNSAYABLE = re.compile("[\0\ud800-\udfff]")
NOT_NOW = (401, 402, 429)  # it would answer the next call the same
FRESH = 1.0  # seconds that an orphan may wait for its call without a new lease

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that has been made and not been settled yet.

    Args:
        superseded: a live account uses the resource, so nobody was called.
        hopeless: why nobody could be called.
        failures: the calls that left something.
        ms: how long it took.
        span: of it, so that what is said later can be told to be of it.
    """

    orphan: Claimed
    superseded: bool = False
    hopeless: str | None = None
    failures: tuple[Outcome, ...] = ()
    ms: int = 0
    span: Span = NOBODY

    @property
    def refused(self) -> str | None:
        """Why the provider need not be asked again now, `None` if it may be."""
        return next((each.failure for each in self.failures if each.status in NOT_NOW), None)


@dataclass(frozen=True, slots=True)
class Retrier:
    """Tries orphans again.

    Args:
        timeout: seconds for the calls of one orphan together.
    """

    ledger: Ledger
    plugins: Plugins
    timeout: float

    def call(self, orphan: Claimed) -> Attempt | None:
        """Call the plugin of a claimed orphan, unless there is no need to.

        Returns:
            `None` if another has taken the orphan over, because it waited too long.
        """
        context.request_id.set(orphan.request_id)
        about: Attributes = {
            "puffle.plugin": orphan.plugin,
            "puffle.orphan.id": orphan.id,
            "puffle.orphan.attempts": orphan.attempts,
            "puffle.account.id": orphan.account_id,
            "puffle.account.type": orphan.account.kind if orphan.account else None,
            "puffle.request.id": orphan.request_id,
        }
        with telemetry.retry(f"retry {orphan.plugin}", about, orphan.origin) as span:
            attempt = self._call(orphan)
            if attempt and (attempt.hopeless or attempt.failures):
                span.failed("_OTHER", attempt.hopeless or attempt.failures[-1].failure)
        return attempt and replace(attempt, span=span)

    def _call(self, orphan: Claimed) -> Attempt | None:
        began = time.monotonic()
        if began - orphan.claimed_at > FRESH:
            renewed = self.ledger.renew(orphan)
            if renewed is None:
                return None
            orphan = renewed
        try:
            attempt = self._attempt(orphan, began)
        except Exception as error:
            if not _is_its_own_fault(error):
                raise
            said = one_line(f"it cannot be worked on: {type(error).__name__}: {one_line(error)}")
            attempt = Attempt(orphan, hopeless=said)
        return replace(attempt, ms=clock.ms_since(began))

    def _attempt(self, orphan: Claimed, began: float) -> Attempt:
        account, plugin = orphan.account, self.plugins.find(orphan.plugin)
        if account is None or plugin is None:
            return Attempt(orphan, hopeless=UNREADABLE)
        named = resources.named(account, plugin.resource_ids or ID_COLUMNS)
        if any(map(UNSAYABLE.search, named.values())):
            return Attempt(orphan, hopeless=UNUSABLE)
        verdict = look(self.ledger.database, plugin, account)
        if verdict is not Verdict.FREE:
            hopeless = UNDECIDED if verdict is Verdict.UNDECIDED else None
            return Attempt(orphan, superseded=True, hopeless=hopeless)
        concerned = [each for each in self.plugins.concerned(account) if each.plugin == plugin.name]
        outcomes = teardown.call_all(concerned, account, began + self.timeout)
        return Attempt(orphan, failures=tuple(o for o in outcomes if o.failure))

    def settle(self, attempt: Attempt) -> str:
        """Write down what came of an attempt; return which of `RESULTS` it is."""
        context.request_id.set(attempt.orphan.request_id)
        with attempt.span.again():
            return self._settle(attempt)

    def _settle(self, attempt: Attempt) -> str:
        orphan = attempt.orphan
        if attempt.hopeless:
            self.ledger.park(orphan, attempt.hopeless)
            return _settled(attempt, "parked", attempt.hopeless)
        if attempt.failures:
            failure = attempt.failures[-1]
            parked = self.ledger.postpone(orphan, failure)
            return _settled(attempt, "parked" if parked else "failed", failure.failure)
        self.ledger.forget(orphan)
        return _settled(attempt, "superseded" if attempt.superseded else "done")


def _is_its_own_fault(error: Exception) -> bool:
    """Whether it lies in what an orphan holds, so that the others can be worked on."""
    at_the_database = isinstance(error, (DatabaseUnavailable, PeeweeException))
    return isinstance(error, DataError) or not at_the_database


def _settled(attempt: Attempt, result: str, reason: str | None = None) -> str:
    """Log what became of an orphan."""
    event = {"superseded": "orphan.superseded", "parked": "orphan.parked"}
    fields = {
        "orphan": attempt.orphan.id,
        "plugin": attempt.orphan.plugin,
        "account": attempt.orphan.account_id,
        "user": attempt.orphan.user_id,
        "outcome": reason or result,
        "ms": attempt.ms,
    }

    telemetry.count(
        "puffle.orphan.retries",
        {"puffle.plugin": attempt.orphan.plugin, "puffle.orphan.result": result},
    )
    level = logging.WARNING if result == "parked" else logging.INFO
    log.log(level, event.get(result, "orphan.retried"), extra=fields)
    return result
