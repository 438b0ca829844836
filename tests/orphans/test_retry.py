"""Contract §4: when an orphan is tried again, by whom, and what becomes of it."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import EntryPoint

import pytest
from orphanage import called_for, failed, leave, ledger_of, record
from support import only, plugin_of, wait_until

from puffle_accounts import clock, database, hookimpl
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.hooks import loading
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.orphans.attempt import Retrier
from puffle_accounts.orphans.due import MOST_ATTEMPTS
from puffle_accounts.orphans.lane import SIDE_BY_SIDE
from puffle_accounts.orphans.ledger import Ledger
from puffle_accounts.orphans.retry import Pass, Scope
from puffle_accounts.testing import account

MINUTE = timedelta(minutes=1)
EARLIEST = {"jitter": lambda least, most: least}
LATEST = {"jitter": lambda least, most: most}


def a_pass(live, timeout=2.0, ledger=None, only=None, **scope) -> Pass:
    plugins = live.service.plugins
    concerned = [plugin for plugin in plugins.active if only in (None, plugin.name)]
    retrier = Retrier(ledger or live.service.ledger, plugins, timeout)
    return Pass(retrier, Scope(concerned, **scope), threading.Event())


def retry(live, timeout=2.0, **options):
    return dict(a_pass(live, timeout, **options).work())


@pytest.fixture
def background():
    with ThreadPoolExecutor() as pool:
        yield pool.submit


# When


def _put_off(stack, ledger, **details) -> tuple[timedelta, timedelta]:
    """Claim the one orphan and let it fail; return the least and the most it was put off."""
    [orphan] = ledger.claim("unipile", 2, ledger.now() + timedelta(days=8))
    before = ledger.now()
    ledger.postpone(orphan, failed("unipile", orphan.account, **details))
    after, [left] = ledger.now(), stack.orphans()
    assert left["leased_until"] is None
    return left["next_attempt_at"] - after, left["next_attempt_at"] - before


def _waits(stack, jitter) -> list[timedelta]:
    """Fail until the orphan is parked; return how long each failure put it off, in minutes."""
    record(stack, failed("unipile", account()))
    ledger, waits = ledger_of(stack, **jitter), []
    while not stack.orphans()[0]["parked_at"]:
        least, most = _put_off(stack, ledger)
        waits.append(round(most / MINUTE))
        assert least <= waits[-1] * MINUTE <= most
    [left] = stack.orphans()
    assert left["attempts"] == MOST_ATTEMPTS
    assert ledger.claim("unipile", 2, ledger.now() + timedelta(days=8)) == []
    return waits[:-1]


@pytest.mark.parametrize(
    ("jitter", "minutes"),
    [(EARLIEST, [1] * 8), (LATEST, [4, 8, 16, 32, 64, 128, 256, 512])],
    ids=["earliest", "latest"],
)
def test_each_failure_puts_off_longer_and_the_tenth_attempt_parks(stack, jitter, minutes):
    assert _waits(stack, jitter) == minutes


HOURS, DAYS = 3600.0, 86400.0


@pytest.mark.parametrize(
    ("attempts", "retry_after", "expected"),
    [
        (1, 0.0, timedelta(minutes=4)),
        (1, 239.0, timedelta(minutes=4)),
        (1, 241.5, timedelta(seconds=241.5)),
        (8, 0.0, timedelta(minutes=512)),
        (8, 9 * HOURS, timedelta(hours=9)),
        (10, 0.0, timedelta(hours=24)),
        (1000, 0.0, timedelta(hours=24)),
        (1000, 25 * HOURS, timedelta(hours=25)),
        (1, 7 * DAYS + 1, timedelta(days=7)),
        (1, math.inf, timedelta(days=7)),
    ],
)
@only("sqlite")
def test_the_next_attempt_is_at_the_later_of_backoff_and_retry_after(
    stack, attempts, retry_after, expected
):
    record(stack, failed("unipile", account()))
    stack.sql("UPDATE orphans SET attempts = ?", attempts)
    least, most = _put_off(stack, ledger_of(stack, **LATEST), retry_after=retry_after)
    assert least <= expected <= most


@only("sqlite")
def test_without_a_clock_of_the_tests_the_wait_is_random_within_its_bounds(live):
    leave(live, 30)
    live.sandbox.behave("unipile", "fail")
    before = clock.now()
    retry(live)
    waits = {o["next_attempt_at"] for o in live.orphans()}
    assert len(waits) > 25
    assert before + timedelta(minutes=1) <= min(waits)
    assert max(waits) <= clock.now() + timedelta(minutes=4)


def test_what_is_permanent_is_parked_at_once_and_stays_parked_when_it_fails_again(live):
    leave(live)
    live.sandbox.behave("unipile", "refuse")
    assert retry(live) == {"parked": 1}
    [first] = live.orphans()
    live.sandbox.behave("unipile", "fail")
    assert retry(live) == {}
    assert retry(live, parked=True) == {"parked": 1}
    [second] = live.orphans()
    assert (first["attempts"], second["attempts"]) == (2, 3)
    assert first["parked_at"]
    assert second["parked_at"]


# Done


@pytest.mark.parametrize("type", ["linkedin", "email"])
def test_once_the_provider_is_well_one_call_finishes_the_orphan(live, events, type):
    provider = {"linkedin": "unipile", "email": "agentmail"}[type]
    account_id = live.add_linkedin() if type == "linkedin" else live.add_email()
    live.sandbox.behave(provider, "fail")
    live.delete(account_id, X_Request_ID="of-the-delete")
    live.sandbox.behave(provider, "ok")
    before = len(live.sandbox.calls)
    assert retry(live) == {"done": 1}
    [call] = live.sandbox.calls[before:]
    assert (call.provider, call.status, call.request_id) == (provider, 200, "of-the-delete")
    assert live.sandbox.resources[provider] == set()
    assert live.sql("SELECT * FROM orphans") == []
    [fields] = [fields for event, fields in events() if event == "orphan.retried"]
    assert (fields["plugin"], fields["account"]) == (provider, account_id)


def test_a_resource_that_is_gone_already_is_done(live):
    leave(live)
    live.sandbox.resources["unipile"].clear()
    assert retry(live) == {"done": 1}
    assert live.orphans() == []


@pytest.mark.parametrize("parked", [False, True])
def test_a_run_tries_no_orphan_twice_even_if_it_is_due_again_at_once(live, parked):
    ledger = ledger_of(live, jitter=lambda least, most: -1.0)
    leave(live, 20, permanent=parked)
    live.sandbox.behave("unipile", "fail")
    results = retry(live, ledger=ledger, parked=parked)
    assert results == {"parked" if parked else "failed": 20}
    assert len(set(called_for(live))) == len(called_for(live)) == 20


# Superseded


def test_an_account_that_was_reconnected_is_not_torn_down_by_an_old_failure(live, events):
    account_id = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id)
    live.sandbox.behave("unipile", "ok")
    live.change(account_id, status="connected")
    before = len(live.sandbox.calls)
    assert retry(live) == {"superseded": 1}
    assert live.sandbox.calls[before:] == []
    assert live.orphans() == []
    [fields] = [fields for event, fields in events() if event == "orphan.superseded"]
    assert fields["account"] == account_id


def test_an_old_session_is_not_spared_because_a_new_one_exists(live):
    account_id = live.add_linkedin(provider_account_id="acc-old")
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id)
    live.sandbox.behave("unipile", "ok")
    live.change(account_id, status="connected", provider_account_id="acc-new")
    live.sandbox.add("unipile", "acc-new")
    assert retry(live) == {"done": 1}
    assert live.sandbox.resources["unipile"] == {"acc-new"}


def test_it_looks_right_before_each_call_not_when_the_run_begins(live, background):
    leave(live, SIDE_BY_SIDE)
    [last] = leave(live)
    live.sandbox.behave("unipile", "hang")
    results = background(retry, live, timeout=20)
    wait_until(lambda: len(live.sandbox.calls) == SIDE_BY_SIDE)
    live.add_linkedin(provider_account_id=last.provider_account_id)
    live.sandbox.behave("unipile", "ok")
    assert results.result() == {"done": SIDE_BY_SIDE, "superseded": 1}
    assert live.sandbox.resources["unipile"] == {last.provider_account_id}


# Side by side, politely


@pytest.mark.parametrize("mode", ["refuse", "unpaid", "rate-limit"])
def test_a_provider_that_answers_401_402_or_429_is_not_asked_again_in_this_run(live, events, mode):
    leave(live, 3 * SIDE_BY_SIDE)
    leave(live, 2, permanent=True)
    leave(live, 3, "agentmail")
    live.sandbox.behave("unipile", mode)
    results = retry(live, parked=True)
    assert results.pop("done") == 3
    assert sum(results.values()) == SIDE_BY_SIDE
    assert len([path for path in called_for(live) if "/accounts/" in path]) == SIDE_BY_SIDE
    untried = [o for o in live.orphans() if o["attempts"] == 1]
    assert len(untried) == 2 * SIDE_BY_SIDE + 2
    assert {o["leased_until"] for o in untried} == {None}
    assert {o["reason"] for o in untried} == {"left by a test"}
    [fields] = [fields for event, fields in events() if event == "retry.stopped"]
    assert fields["plugin"] == "unipile"
    assert fields["reason"].startswith("Unipile: session revoke: 4")


def test_a_provider_that_merely_fails_is_asked_for_every_orphan(live):
    leave(live, 2 * SIDE_BY_SIDE + 1)
    live.sandbox.behave("unipile", "fail")
    assert retry(live) == {"failed": 2 * SIDE_BY_SIDE + 1}


@only("sqlite")
def test_no_more_calls_at_a_time_than_the_bulkhead_admits(live):
    """A place that is not free is no failure of the orphan."""

    @hookimpl
    def teardown_account(account):
        time.sleep(1.2)  # longer than anybody waits for a place

    live.service.plugins = Plugins(
        [plugin_of("narrow", limit=1, teardown_account=teardown_account)]
    )
    record(live, *(failed("narrow", account()) for _ in range(2)))
    assert retry(live, timeout=5) == {"done": 2}


@pytest.mark.parametrize("limit", [1, 8, 9, 100])
def test_the_limit_holds_for_all_plugins_together(live, limit):
    for plugin in ("unipile", "instantly", "agentmail"):
        leave(live, 3, plugin)
    assert retry(live, limit=limit) == {"done": min(limit, 9)}
    assert len(live.orphans()) == 9 - min(limit, 9)


# Of due and parked ones of two plugins, and one that is not due yet, those that are tried.
CHOICES = [
    ({}, {"unipile due", "agentmail due"}),
    ({"parked": True}, {"unipile due", "agentmail due", "unipile parked", "agentmail parked"}),
    ({"only": "unipile"}, {"unipile due"}),
    ({"only": "unipile", "parked": True}, {"unipile due", "unipile parked"}),
    ({"only": "unipile", "parked": True, "limit": 1}, {"unipile due"}),
    ({"only": "nobody", "parked": True}, set()),
]


@pytest.mark.parametrize(("options", "tried"), CHOICES)
def test_the_options_choose_what_is_tried(live, options, tried):
    for plugin in ("unipile", "agentmail"):
        leave(live, 1, plugin, failure=f"{plugin} due")
        leave(live, 1, plugin, failure=f"{plugin} parked", permanent=True)
    leave(live, failure="unipile later", retry_after=60)
    before = {o["reason"] for o in live.orphans()}
    assert sum(retry(live, **options).values()) == len(tried)
    assert before - {o["reason"] for o in live.orphans()} == tried


@only("sqlite")
def test_a_plugin_without_orphans_takes_nothing_from_the_limit(live):
    for _ in range(10):
        leave(live, 1, "agentmail")
        assert retry(live, limit=1) == {"done": 1}


def test_the_orphans_to_try_can_be_counted_before(live):
    leave(live, 3)
    leave(live, 2, permanent=True)
    leave(live, 4, "agentmail")
    leave(live, 1, "agentmail", retry_after=60)
    record(live, failed("nobody", account()))

    def count(**options):
        return a_pass(live, **options).count()

    assert (count(), count(parked=True), count(limit=5)) == (7, 9, 5)
    assert (count(only="unipile"), count(only="unipile", parked=True)) == (3, 5)


# Where no plugin does it


def test_the_orphans_of_a_broken_plugin_fail_and_stay(live):
    point = EntryPoint("broken", "no_such_module", loading.GROUP)
    live.service.plugins = loading.load(8, found=[point])
    record(live, failed("broken", account()))
    assert retry(live) == {"failed": 1}
    [orphan] = live.orphans()
    assert orphan["attempts"] == 2
    assert "broken cannot be used" in orphan["reason"]


def test_an_orphan_that_does_not_concern_its_plugin_is_done(live):
    """It was written while the plugin was broken."""
    calls = []
    module = {"ACCOUNT_TYPES": {"linkedin"}, "RESOURCE_IDS": ("metadata.session",)}
    choosy = plugin_of(
        "choosy", **module, teardown_account=hookimpl(lambda account: calls.append(account))
    )
    other = plugin_of("other", teardown_account=hookimpl(lambda account: None))
    live.service.plugins = Plugins([choosy, other])
    record(live, failed("choosy", account(type="email", metadata={"session": 1})))
    record(live, failed("choosy", account(type="linkedin", email_address="a@b.example")))
    assert retry(live) == {"done": 2}
    assert (live.orphans(), calls) == ([], [])


def test_an_orphan_of_a_type_that_no_plugin_takes_is_not_done_but_parked(live):
    module = {"ACCOUNT_TYPES": {"linkedin"}, "RESOURCE_IDS": ("metadata.session",)}
    choosy = plugin_of("choosy", **module, teardown_account=hookimpl(lambda account: "done"))
    live.service.plugins = Plugins([choosy])
    record(live, failed("choosy", account(type="gmail", metadata={"session": 1})))
    assert retry(live) == {"parked": 1}
    [orphan] = live.orphans()
    assert orphan["reason"] == "no plugin takes accounts of type gmail"


def test_the_orphans_of_a_disabled_or_missing_plugin_are_not_touched(live):
    leave(live)
    record(live, failed("nobody", account()))
    before = live.orphans()
    live.service.plugins = loading.load(8, disabled={"unipile"})
    assert retry(live, parked=True) == {}
    assert live.orphans() == before


def test_a_plugin_that_hangs_or_ends_the_process_holds_up_no_other(live):
    @hookimpl
    def hangs(account):
        threading.Event().wait(60)

    @hookimpl
    def exits(account):
        raise SystemExit(1)

    troublemakers = [plugin_of(f.__name__, teardown_account=f) for f in (hangs, exits)]
    live.service.plugins = Plugins([*troublemakers, *live.service.plugins.all])
    record(live, failed("hangs", account()), failed("exits", account()))
    leave(live, 3)
    started = time.monotonic()
    assert retry(live, timeout=0.5) == {"failed": 2, "done": 3}
    assert time.monotonic() - started < 20
    assert {o["reason"] for o in live.orphans()} == {
        "did not finish before the teardown deadline",
        "SystemExit: 1",
    }


@only("sqlite")
def test_no_thread_of_a_pass_holds_up_the_end_of_the_process(live):
    daemons = set()

    def look():
        daemons.add(threading.current_thread().daemon)

    class WatchedLedger(Ledger):
        def claim(self, *words):
            look()  # before the first call, and after each
            return super().claim(*words)

        def forget(self, orphan):
            look()
            super().forget(orphan)

    leave(live, 3)
    assert retry(live, ledger=WatchedLedger(live.database, timedelta(seconds=12))) == {"done": 3}
    assert daemons == {True}


# The database


def _assert_no_transaction_is_open(stack):
    other = database.connect(stack.database_url)
    if isinstance(other, Postgres):
        with other.writing():
            other.sql("LOCK TABLE accounts, orphans IN ACCESS EXCLUSIVE MODE NOWAIT")
    else:
        with other.reading():
            busy, *_ = other.sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy
    other.close_all()


@pytest.mark.parametrize("by", ["a retry", "a DELETE"])
def test_no_transaction_is_open_while_a_provider_is_awaited(live, background, by):
    account_id = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id)
    live.sandbox.behave("unipile", "hang")
    begun = len(live.sandbox.calls)
    if by == "a retry":
        waiting = background(retry, live, timeout=20)
    else:
        live.service.timeout = 20
        live.change(account_id, status="connecting")
        waiting = background(live.delete, account_id)
    wait_until(lambda: len(live.sandbox.calls) > begun)
    _assert_no_transaction_is_open(live)
    live.sandbox.behave("unipile", "ok")
    assert waiting.result()
    assert live.sandbox.resources["unipile"] == set()


@only("sqlite")
def test_no_provider_is_called_while_what_came_of_earlier_calls_waits_for_the_ledger(live):
    leave(live, 5 * SIDE_BY_SIDE)
    waiting: list[int] = []

    class SlowLedger(Ledger):
        def forget(self, orphan):
            waiting.append(len(live.sandbox.calls) - len(waiting))
            time.sleep(0.02)
            super().forget(orphan)

    retried = retry(live, ledger=SlowLedger(live.database, timedelta(seconds=12)))
    assert retried["done"] == 5 * SIDE_BY_SIDE
    # Those that are called for, those that wait, the one that is being settled.
    assert max(waiting) <= 2 * SIDE_BY_SIDE + 1


@only("sqlite")
def test_once_the_ledger_has_failed_nothing_more_is_written_into_it(live):
    tried = []

    class FailingLedger(Ledger):
        def forget(self, orphan):
            tried.append(orphan)
            raise DatabaseUnavailable("full")

    leave(live, SIDE_BY_SIDE)
    with pytest.raises(DatabaseUnavailable, match="full"):
        retry(live, ledger=FailingLedger(live.database, timedelta(seconds=12)))
    assert len(tried) == 1
    assert len(live.orphans()) == SIDE_BY_SIDE


def test_where_the_database_fails_the_run_says_so_and_the_orphan_stays(live):
    leave(live)
    live.sql("ALTER TABLE accounts RENAME TO accounts_away")
    with pytest.raises(DatabaseUnavailable):
        retry(live)
    [orphan] = live.orphans()
    assert orphan["attempts"] == 1
    assert orphan["leased_until"]
    assert called_for(live) == []
