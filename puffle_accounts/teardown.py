"""Run the hooks of one account side by side and collect what became of each."""

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

from puffle_accounts import context
from puffle_accounts.account import Account
from puffle_accounts.hookspecs import TeardownFailed
from puffle_accounts.plugins import Hook
from puffle_accounts.text import one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call.

    Args:
        said: what the plugin says it did, `None` if it had nothing to do.
        failure: what is left, `None` if nothing is.
        retry_after: seconds that the provider asked to wait, 0 if it did not.
        permanent: trying again by itself is pointless.
        status: the provider's HTTP status, if it was one that failed the call.
    """

    hook: Hook
    account: Account
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
        self._waiting: dict[int, tuple[Hook, Account, str | None]] = {}
        self._done: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()

    def start(self, hook: Hook, account: Account) -> None:
        """Call a hook with an account, in the background."""
        number, request_id = len(self._waiting), context.request_id.get()
        self._waiting[number] = (hook, account, request_id)
        if time.monotonic() >= self._deadline:
            return
        work = contextvars.Context()  # an empty one: a plugin sees nothing of the request
        work.run(context.deadline.set, self._deadline)
        work.run(context.request_id.set, request_id)
        thread = threading.Thread(
            target=work.run,
            args=(_call, hook, account, self._deadline, number, self._done),
            name=f"teardown-{hook.plugin}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no thread left
            self._done.put((number, _failed(hook, account, error, None)))

    def finish(self) -> list[Outcome]:
        """Return every call's outcome; what is not done at the deadline counts as failed."""
        outcomes = []
        while self._waiting:
            try:
                left = self._deadline - time.monotonic()
                number, outcome = self._done.get(timeout=max(left, 0))
            except Empty:
                break
            del self._waiting[number]
            outcomes.append(outcome)
        late = TeardownFailed("did not finish before the teardown deadline")
        for hook, account, request_id in self._waiting.values():
            context.request_id.set(request_id)  # a retry's calls are of several requests
            outcomes.append(_failed(hook, account, late, None))
        return outcomes


def run(hooks: Iterable[Hook], account: Account, deadline: float) -> list[Outcome]:
    """Call each hook with the account, all at the same time.

    Args:
        deadline: when nobody waits any longer, in seconds of `time.monotonic()`.
    """
    batch = Batch(deadline)
    for hook in hooks:
        batch.start(hook, account)
    return batch.finish()


def _call(
    hook: Hook,
    account: Account,
    deadline: float,
    number: int,
    done: SimpleQueue[tuple[int, Outcome]],
) -> None:
    started = time.monotonic()
    if hook.bulkhead.enter(deadline):
        try:
            outcome = _isolated(hook, account, started)
        finally:
            hook.bulkhead.leave()
    else:
        busy = TeardownFailed(f"all {hook.bulkhead.limit} calls to {hook.plugin} are taken")
        outcome = _failed(hook, account, busy, started)
    done.put((number, outcome))


def _isolated(hook: Hook, account: Account, started: float) -> Outcome:
    try:
        said = hook.call(account=account)
        if said is not None and not isinstance(said, str):
            raise TeardownFailed(f"returned {type(said).__name__} instead of None or text")
    except BaseException as error:  # SystemExit of a plugin included
        return _failed(hook, account, error, started)
    if said is None:
        return Outcome(hook, account)
    line = one_line(said)
    log.info("teardown.done", extra=_fields(hook, account, started, line))
    return Outcome(hook, account, said=line)


def _failed(hook: Hook, account: Account, error: BaseException, started: float | None) -> Outcome:
    expected = isinstance(error, TeardownFailed)
    said = one_line(error)
    reason = said if expected else one_line(f"{type(error).__name__}: {said}")
    log.warning(
        "teardown.failed",
        extra=_fields(hook, account, started, reason),
        exc_info=None if expected else error,
    )
    details = error if expected else None  # another's `status` may be anything
    return Outcome(
        hook,
        account,
        failure=reason or "failed without a word",
        retry_after=_seconds(getattr(details, "retry_after", None)),
        permanent=bool(getattr(details, "permanent", False)),
        status=getattr(details, "status", None),
    )


def _fields(hook: Hook, account: Account, started: float | None, outcome: str) -> dict[str, Any]:
    took = None if started is None else round((time.monotonic() - started) * 1000)
    return {
        "plugin": hook.plugin,
        "account": account.id,
        "user": account.user_id,
        "outcome": outcome,
        "ms": took,
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
