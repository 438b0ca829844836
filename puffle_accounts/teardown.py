"""Call the implementations for one account side by side and collect what became of each."""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from puffle_accounts import clock, context
from puffle_accounts.account import Account
from puffle_accounts.errors import TeardownFailed
from puffle_accounts.hooks.registry import Implementation
from puffle_accounts.text import one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call.

    Args:
        plugin: whose implementation was called.
        ms: how long it took, or had taken when nobody waited any longer.
        said: what the plugin says it did, `None` if it had nothing to do.
        failure: what is left, `None` if nothing is.
        retry_after: seconds that the provider asked to wait, 0 if it did not.
        permanent: trying again by itself is pointless.
        status: the provider's HTTP status, if it was one that failed the call.
    """

    plugin: str
    account: Account
    ms: int
    said: str | None = None
    failure: str | None = None
    retry_after: float = 0.0
    permanent: bool = False
    status: int | None = None


class Batch:
    """Calls that run side by side under one deadline.

    Each call has a daemon thread of its own: a thread that hangs is waited for by
    nobody, neither at the deadline nor at exit, as a `ThreadPoolExecutor` would.
    Under gevent the same threads are greenlets.

    Args:
        deadline: when nobody waits any longer, in seconds of `time.monotonic()`.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._waiting: list[_Call] = []
        self._done: SimpleQueue[tuple[_Call, Outcome]] = SimpleQueue()

    def start(self, implementation: Implementation, account: Account) -> None:
        """Call an implementation with an account, in the background."""
        call = _Call(implementation, account, context.request_id.get(), time.monotonic())
        self._waiting.append(call)
        if call.started >= self._deadline:
            return
        work = contextvars.Context()  # an empty one: a plugin sees nothing of the request
        work.run(context.deadline.set, self._deadline)
        work.run(context.request_id.set, call.request_id)
        thread = threading.Thread(
            target=work.run,
            args=(_run, call, self._deadline, self._done),
            name=f"teardown-{implementation.plugin}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no thread left
            self._done.put((call, call.failed(error)))

    def finish(self) -> list[Outcome]:
        """Return every call's outcome; what is not done at the deadline counts as failed."""
        outcomes = []
        while self._waiting:
            try:
                left = self._deadline - time.monotonic()
                call, outcome = self._done.get(timeout=max(left, 0))
            except Empty:
                break
            self._waiting.remove(call)
            outcomes.append(outcome)
        late = TeardownFailed("did not finish before the teardown deadline")
        for call in self._waiting:
            context.request_id.set(call.request_id)  # a retry's calls are of several requests
            outcomes.append(call.failed(late))
        return outcomes


def call_all(
    implementations: Iterable[Implementation], account: Account, deadline: float
) -> list[Outcome]:
    """Call each implementation with the account, all at the same time.

    Args:
        deadline: when nobody waits any longer, in seconds of `time.monotonic()`.
    """
    batch = Batch(deadline)
    for implementation in implementations:
        batch.start(implementation, account)
    return batch.finish()


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One call under way."""

    implementation: Implementation
    account: Account
    request_id: str | None
    started: float

    def done(self, said: str | None) -> Outcome:
        plugin = self.implementation.plugin
        outcome = Outcome(plugin, self.account, clock.ms_since(self.started), said=said)
        if said is not None:
            log.info("teardown.done", extra=_fields(outcome))
        return outcome

    def failed(self, error: BaseException) -> Outcome:
        expected = isinstance(error, TeardownFailed)
        said = one_line(error)
        reason = said if expected else one_line(f"{type(error).__name__}: {said}")
        details = error if expected else None  # another's `status` may be anything
        outcome = Outcome(
            self.implementation.plugin,
            self.account,
            clock.ms_since(self.started),
            failure=reason or "failed without a word",
            retry_after=_seconds(getattr(details, "retry_after", None)),
            permanent=bool(getattr(details, "permanent", False)),
            status=getattr(details, "status", None),
        )
        log.warning("teardown.failed", extra=_fields(outcome), exc_info=None if expected else error)
        return outcome


def _run(call: _Call, deadline: float, done: SimpleQueue[tuple[_Call, Outcome]]) -> None:
    bulkhead = call.implementation.bulkhead
    if bulkhead.enter(deadline):
        try:
            outcome = _isolated(call)
        finally:
            bulkhead.leave()
    else:
        outcome = call.failed(
            TeardownFailed(f"all {bulkhead.limit} calls to {call.implementation.plugin} are taken")
        )
    done.put((call, outcome))


def _isolated(call: _Call) -> Outcome:
    try:
        said = call.implementation.call(account=call.account)
        if said is not None and not isinstance(said, str):
            raise TeardownFailed(f"returned {type(said).__name__} instead of None or text")
    except BaseException as error:  # SystemExit of a plugin included
        try:
            return call.failed(error)
        except BaseException as second:  # even looking at what it raised may raise
            what = f"raised {type(error).__name__}, which raised {type(second).__name__}"
            return call.failed(TeardownFailed(what))
    return call.done(said if said is None else one_line(said))


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "plugin": outcome.plugin,
        "account": outcome.account.id,
        "user": outcome.account.user_id,
        "outcome": outcome.failure or outcome.said,
        "ms": outcome.ms,
    }


def _seconds(value: Any) -> float:
    """Return what a plugin gave as `retry_after` as seconds from 0 up, whatever it was."""
    try:
        seconds = float(value)
    except OverflowError:
        return math.inf
    except BaseException:  # whatever a plugin gave may do when it is looked at
        return 0.0
    return seconds if seconds > 0 else 0.0  # not a number compares as false
