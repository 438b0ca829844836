"""A hung provider fills only its own places; a burst at a healthy one is served.

The tests of this file also run under gevent, in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ROOT, only, plugin_of, wait_until, write_distribution

from puffle_accounts import hookimpl, teardown
from puffle_accounts.bulkhead import PATIENCE, Bulkhead
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.testing import account

FAR = 60.0  # seconds: a deadline that nobody in these tests reaches


class Visit:
    """A call that comes for a place, in a thread of its own."""

    def __init__(self, bulkhead: Bulkhead, seconds: float = FAR) -> None:
        self.entered: bool | None = None
        self.waited = 0.0
        self._thread = threading.Thread(target=self._come, args=(bulkhead, seconds), daemon=True)
        self._thread.start()

    def _come(self, bulkhead: Bulkhead, seconds: float) -> None:
        started = time.monotonic()
        entered = bulkhead.enter(started + seconds)
        self.waited = time.monotonic() - started
        self.entered = entered

    def result(self) -> bool:
        self._thread.join(FAR)
        return self.entered


def full(limit: int = 1, patience: float = PATIENCE) -> Bulkhead:
    """Return a bulkhead whose places have just been taken."""
    bulkhead = Bulkhead(limit, patience)
    assert all(bulkhead.enter(time.monotonic() + FAR) for _ in range(limit))
    return bulkhead


def test_at_most_so_many_calls_are_under_way_and_all_get_their_turn():
    bulkhead, lock = Bulkhead(3), threading.Lock()
    inside, most = 0, 0

    def call(_):
        nonlocal inside, most
        entered = bulkhead.enter(time.monotonic() + FAR)
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        bulkhead.leave()
        return entered

    with ThreadPoolExecutor(30) as callers:
        assert all(callers.map(call, range(30)))
    assert most == 3


def test_a_call_waits_about_a_second_for_a_place_and_then_gives_up():
    visit = Visit(full())
    assert visit.result() is False
    assert 0.9 * PATIENCE < visit.waited < 10


def test_a_place_that_comes_back_is_taken_at_once():
    bulkhead = full(patience=FAR)
    visit = Visit(bulkhead)
    time.sleep(0.3)
    assert visit.entered is None
    assert (bulkhead.under_way, bulkhead.waiting) == (1, 1)
    bulkhead.leave()
    assert visit.result() is True
    assert visit.waited < FAR / 2
    assert (bulkhead.under_way, bulkhead.waiting) == (1, 0)


def test_when_none_has_come_back_for_that_long_nobody_waits_any_more():
    bulkhead = full(2, patience=0.4)
    time.sleep(0.5)
    visits = [Visit(bulkhead) for _ in range(20)]
    assert [visit.result() for visit in visits] == [False] * 20
    assert max(visit.waited for visit in visits) < 0.4


def test_as_long_as_calls_come_back_a_call_waits_longer_than_a_second():
    bulkhead = full()
    visits = [Visit(bulkhead) for _ in range(3)]
    for _ in range(3):
        time.sleep(0.4)
        bulkhead.leave()
    assert [visit.result() for visit in visits] == [True] * 3
    assert max(visit.waited for visit in visits) > PATIENCE


def test_first_come_first_served_and_nobody_overtakes():
    bulkhead = full(patience=FAR)
    visits = []
    for _ in range(4):
        visits.append(Visit(bulkhead))
        time.sleep(0.05)
    for turn in range(1, 5):
        bulkhead.leave()
        newcomer = Visit(bulkhead, seconds=0)
        assert newcomer.result() is False
        wait_until(lambda first=visits[turn - 1]: first.entered)
        assert [v.entered for v in visits] == [True] * turn + [None] * (4 - turn)


def test_a_place_handed_over_at_the_last_moment_is_not_lost():
    bulkhead = full(patience=FAR)
    for _ in range(50):
        visit = Visit(bulkhead, seconds=0.002)
        time.sleep(0.002)
        bulkhead.leave()
        if not visit.result():
            assert bulkhead.enter(time.monotonic() + FAR)


def test_nobody_waits_beyond_the_deadline():
    visit = Visit(full(patience=FAR), seconds=0.2)
    assert visit.result() is False
    assert visit.waited < FAR / 2


def test_a_provider_that_has_recovered_is_served_again():
    bulkhead = full(patience=0.4)
    assert Visit(bulkhead).result() is False
    assert Visit(bulkhead).result() is False
    bulkhead.leave()
    assert Visit(bulkhead).result() is True


def test_a_hung_plugin_fills_its_own_places_and_no_others():
    hang = plugin_of("hung", limit=2, teardown_account=hookimpl(lambda account: time.sleep(FAR)))
    healthy = plugin_of("healthy", limit=2, teardown_account=hookimpl(lambda account: "done"))
    hooks = Plugins([hang, healthy]).concerned(account())
    deadline = time.monotonic() + 2.0
    with ThreadPoolExecutor(8) as requests:
        batches = list(
            requests.map(lambda _: teardown.call_all(hooks, account(), deadline), range(8))
        )
    said = [outcome.failure or outcome.said for batch in batches for outcome in batch]
    assert sorted(said) == sorted(
        ["done"] * 8
        + ["did not finish before the teardown deadline"] * 2
        + ["all 2 calls to hung are taken"] * 6
    )


def test_a_hook_that_raises_gives_its_place_back():
    calls = []

    def exits(account):
        calls.append(account)
        raise SystemExit

    hooks = Plugins([plugin_of("crm", limit=1, teardown_account=hookimpl(exits))]).concerned(
        account()
    )
    for _ in range(3):
        teardown.call_all(hooks, account(), time.monotonic() + FAR)
    assert len(calls) == 3


PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_all_of_this_is_the_same_under_gevent():
    selection = ("-p", "no:cacheprovider", "-k", "not gevent and not gunicorn")
    patched = subprocess.run(
        [sys.executable, "-c", PATCHED, *selection, __file__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert patched.returncode == 0, patched.stdout
    assert "11 passed" in patched.stdout


# Through the real server

TIMEOUT = 3
SLOW = """
import time
from puffle_accounts import hookimpl

ACCOUNT_TYPES = {"email"}

@hookimpl
def teardown_account(account):
    time.sleep(0.2)
    return "done"
"""


@only("postgresql")
@pytest.mark.parametrize("worker_class", ["gevent", "gthread"])
def test_under_gunicorn_a_burst_meets_a_hung_provider_and_only_that_one_leaves_orphans(
    stack, gunicorn, tmp_path, worker_class
):
    write_distribution(tmp_path / "site", "slow", SLOW)
    gunicorn(
        *("--worker-class", worker_class),
        PYTHONPATH=str(tmp_path / "site"),
        PUFFLE_PLUGIN_CALLS="8",
        PUFFLE_TEARDOWN_TIMEOUT=str(TIMEOUT),
    )
    stack.sandbox.behave("agentmail", "hang")
    emails = [stack.add_email() for _ in range(48)]
    others = [stack.add_linkedin() for _ in range(20)]
    with ThreadPoolExecutor(len(emails)) as clients:
        burst = [clients.submit(stack.delete, account_id) for account_id in emails]
        wait_until(lambda: sum(call.provider == "agentmail" for call in stack.sandbox.calls) == 8)
        untouched = [stack.delete(account_id) for account_id in others]
        served = [answer.result() for answer in burst]

    # Nobody else is slowed by the provider that hangs,
    assert {answer.headers["Teardown-Status"] for answer in untouched} == {"complete"}
    assert max(answer.elapsed.total_seconds() for answer in untouched) < TIMEOUT
    # the burst is served by those that work, though it takes longer than a call's patience,
    assert {answer.headers["Teardown-Status"] for answer in served} == {"partial"}
    assert stack.sandbox.resources["instantly"] == set()
    assert {orphan["plugin"] for orphan in stack.orphans()} == {"agentmail"}
    # and behind the one that hangs nobody queues.
    assert sum("all 8 calls" in orphan["reason"] for orphan in stack.orphans()) == 40
    assert sum(answer.elapsed.total_seconds() < 0.8 * TIMEOUT for answer in served) == 40
