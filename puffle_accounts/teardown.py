"""Call the implementations for one account side by side and collect what became of each."""

from __future__ import annotations

import contextvars
import copy
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
from puffle_accounts.errors import PluginFault, TeardownFailed
from puffle_accounts.hooks import faults
from puffle_accounts.hooks.hookimpls import TEARDOWN
from puffle_accounts.hooks.registry import Implementation
from puffle_accounts.telemetry import telemetry
from puffle_accounts.telemetry.silent import Attributes, Span
from puffle_accounts.text import one_line

IN_USE = "in use by another account"
SPARED_FOR = 60.0  # seconds until it is looked at again

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
        resource_ids: the fields of the account that name what the plugin holds.
        spared: it was not called, since another account uses what it holds.
    """

    plugin: str
    account: Account
    ms: int
    said: str | None = None
    failure: str | None = None
    retry_after: float = 0.0
    permanent: bool = False
    status: int | None = None
    resource_ids: tuple[str, ...] = ()
    spared: bool = False


def call_all(
    implementations: Iterable[Implementation], account: Account, deadline: float
) -> list[Outcome]:
    """Call each implementation with the account, all at the same time; return what became of each.

    Each call has a daemon thread of its own: a thread that hangs is waited for by
    nobody, neither at the deadline nor at exit, as a `ThreadPoolExecutor` would.
    Under gevent the same threads are greenlets.

    Args:
        deadline: when nobody waits any longer, in seconds of `time.monotonic()`; what is
            not done by then counts as failed.
    """
    done: _Done = SimpleQueue()
    waiting = [_start(each, account, deadline, done) for each in implementations]
    outcomes = []
    while waiting:
        try:
            call, outcome = done.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            break
        waiting.remove(call)
        outcomes.append(call.ended(outcome))
    late = TeardownFailed("did not finish before the teardown deadline")
    return outcomes + [call.ended(call.failed(late)) for call in waiting]


def spared(implementation: Implementation, account: Account) -> Outcome:
    """Return the outcome of a call that is not made, since another account uses the resource."""
    outcome = Outcome(
        implementation.plugin,
        account,
        ms=0,
        failure=IN_USE,
        retry_after=SPARED_FOR,
        resource_ids=implementation.resource_ids,
        spared=True,
    )
    log.info("teardown.spared", extra=_fields(outcome))
    return outcome


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One call under way."""

    implementation: Implementation
    account: Account
    started: float
    span: Span

    def done(self, said: str | None) -> Outcome:
        plugin = self.implementation.plugin
        outcome = Outcome(plugin, self.account, clock.ms_since(self.started), said=said)
        if said is not None:
            log.info("teardown.done", extra=_fields(outcome))
        return outcome

    def failed(self, error: BaseException) -> Outcome:
        expected = isinstance(error, TeardownFailed)
        said = one_line(error)
        name = type(error).__name__
        reason = said if expected else one_line(f"{name}: {said}" if said else name)
        details = error if expected else None  # another's `status` may be anything
        outcome = Outcome(
            self.implementation.plugin,
            self.account,
            clock.ms_since(self.started),
            failure=reason or "failed without a word",
            retry_after=_seconds(getattr(details, "retry_after", None)),
            permanent=bool(getattr(details, "permanent", False)),
            status=getattr(details, "status", None),
            resource_ids=self.implementation.resource_ids,
        )
        if faults.is_fault(error):
            faults.report(error, TEARDOWN, _fields(outcome))
        else:
            log.warning("teardown.failed", extra=_fields(outcome))
        return outcome

    def ended(self, outcome: Outcome) -> Outcome:
        """Tell once what the caller makes of it: a thread that hangs tells nothing."""
        attributes = _told(outcome)
        self.span.set(attributes)
        if outcome.failure:
            self.span.failed(str(attributes["error.type"]), outcome.failure)
        self.span.end()
        telemetry.time("puffle.teardown.duration", outcome.ms / 1000, attributes)
        return outcome


_Done = SimpleQueue[tuple[_Call, Outcome]]


def _start(implementation: Implementation, account: Account, deadline: float, done: _Done) -> _Call:
    plugin = implementation.plugin
    span = telemetry.begin(f"teardown {plugin}", {"puffle.plugin": plugin})
    call = _Call(implementation, account, time.monotonic(), span)
    if call.started >= deadline:
        return call
    work = contextvars.Context()  # an empty one: a plugin sees nothing of the request
    work.run(context.deadline.set, deadline)
    work.run(context.request_id.set, context.request_id.get())
    span.carry(work)
    thread = threading.Thread(
        target=work.run,
        args=(_run, call, deadline, done),
        name=f"teardown-{plugin}",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError as error:  # the machine has no thread left
        done.put((call, call.failed(TeardownFailed(f"{type(error).__name__}: {error}"))))
    return call


def _run(call: _Call, deadline: float, done: _Done) -> None:
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
        # A copy: `object.__setattr__` changes even what is frozen, and the row goes by ours.
        said = call.implementation.call(account=copy.copy(call.account))
        if said is not None and not isinstance(said, str):
            raise PluginFault(f"returned {type(said).__name__} instead of None or text")
    except BaseException as error:  # SystemExit of a plugin included
        try:
            return call.failed(error)
        except BaseException as second:  # even looking at what it raised may raise
            what = f"raised {type(error).__name__}, which raised {type(second).__name__}"
            return call.failed(PluginFault(what))
    return call.done(said if said is None else one_line(said))


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "plugin": outcome.plugin,
        "account": outcome.account.id,
        "user": outcome.account.user_id,
        "outcome": outcome.failure or outcome.said,
        "ms": outcome.ms,
    }


def _told(outcome: Outcome) -> Attributes:
    """Return what a metric may be split by: few values, whatever a plugin says."""
    if not outcome.failure:
        became = "nothing" if outcome.said is None else "done"
        return {"puffle.plugin": outcome.plugin, "puffle.teardown.outcome": became}
    status = outcome.status
    is_http = isinstance(status, int) and 100 <= status < 600
    return {
        "puffle.plugin": outcome.plugin,
        "puffle.teardown.outcome": "failed",
        "error.type": str(status) if is_http else "_OTHER",
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
