"""`orphans retry --every`: pass after pass, as `orphans.retry.Repetition` makes them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from orphanage import leave, ledger_of
from support import only, wait_until

from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.orphans.attempt import Retrier
from puffle_accounts.orphans.ledger import Ledger
from puffle_accounts.orphans.retry import Repetition, Scope

pytestmark = [only("sqlite"), pytest.mark.timeout(60)]


class Broken(Ledger):
    """A ledger whose clock fails for as many times as there are errors."""

    errors: list[Exception] = []

    def now(self):
        if self.errors:
            raise self.errors.pop()
        return super().now()


@pytest.fixture
def repeat(live):
    """Repeat in the background; `repeat(...)` returns what stops it, and its end."""
    stop = threading.Event()

    def begin(ledger=None, seconds=0.01, **scope):
        plugins = live.service.plugins
        retrier = Retrier(ledger or ledger_of(live), plugins, 2.0)
        repetition = Repetition(retrier, Scope(plugins.active, **scope), seconds, stop)
        return stop, pool.submit(repetition.work)

    with ThreadPoolExecutor() as pool:
        yield begin
        stop.set()


def told(events, *names):
    return [(event, fields) for event, fields in events() if event in names]


def test_it_goes_on_until_it_is_stopped_and_tells_what_each_pass_has_done(live, events, repeat):
    leave(live, 2)
    stop, ended = repeat()
    wait_until(lambda: not live.orphans())
    live.sandbox.behave("agentmail", "fail")
    leave(live, 1, "agentmail")
    wait_until(lambda: [each["attempts"] for each in live.orphans()] == [2])
    wait_until(lambda: len(told(events, "retry.pass")) == 2)
    stop.set()
    ended.result(10)
    counts = [
        tuple(fields[name] for name in ("plugin", "done", "superseded", "failed", "parked"))
        for _, fields in told(events, "retry.pass")
    ]
    assert counts == [("unipile", 2, 0, 0, 0), ("agentmail", 0, 0, 1, 0)]


def test_a_database_that_is_away_is_waited_for_and_told_of_once(live, events, repeat):
    leave(live)
    ledger = Broken(live.database, timedelta(seconds=12))
    ledger.errors[:] = [DatabaseUnavailable("out for lunch")] * 7
    stop, ended = repeat(ledger)
    wait_until(lambda: not live.orphans())
    stop.set()
    ended.result(10)
    said = told(events, "database.unavailable", "database.back")
    assert [event for event, _ in said][:2] == ["database.unavailable", "database.back"]
    assert said[0][1]["reason"] == "out for lunch"
    assert len(said) % 2 == 0  # back is said as often as away


def test_any_other_error_ends_the_work_of_every_provider(live, repeat):
    ledger = Broken(live.database, timedelta(seconds=12))
    ledger.errors[:] = [ZeroDivisionError("a bug")]
    stop, ended = repeat(ledger, seconds=60)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        ended.result(10)
    assert stop.is_set()


def test_a_pass_takes_as_many_as_it_may_and_parked_ones_only_if_it_is_told_to(live, repeat):
    leave(live, 2, permanent=True)
    stop, ended = repeat(seconds=60)
    stop.set()
    ended.result(10)
    assert len(live.orphans()) == 2
    stop.clear()
    stop, ended = repeat(seconds=60, parked=True, limit=1)
    wait_until(lambda: len(live.orphans()) == 1)
    stop.set()
    ended.result(10)
    assert len(live.orphans()) == 1
