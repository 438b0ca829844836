"""One account's hooks run side by side, each on its own, under one deadline."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from flask import has_request_context
from support import only, plugin_of, use, wait_until, write_distribution

from puffle_accounts import TeardownFailed, clock, hookimpl, teardown
from puffle_accounts.database.pooled import CONNECTIONS
from puffle_accounts.database.sqlite import Sqlite
from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.testing import account


def does(result):
    """Return a hook that raises `result`, returns it, or calls it."""

    def hook(account):
        if isinstance(result, BaseException):
            raise result
        return result() if callable(result) else result

    return hook


def meeting(parties: int):
    """Return a hook that ends well only if so many calls of it are under way at one time."""
    barrier = threading.Barrier(parties)

    def hook(account):
        barrier.wait(20)

    return hook


class Unprintable(Exception):
    def __str__(self):
        raise SystemExit


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise SystemExit


class Odd:
    def __float__(self):
        raise SystemExit


def recurse():
    return recurse()


# What a plugin does -> how the reason of its orphan begins.
MISBEHAVIOUR = {
    "raises": (ValueError("boom"), "ValueError: boom"),
    "raises without a word": (ValueError(), "ValueError"),
    "fails": (TeardownFailed("session left"), "session left"),
    "fails without a word": (TeardownFailed(""), "failed without a word"),
    "exits": (SystemExit(1), "SystemExit: 1"),
    "interrupts": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "ends a generator": (GeneratorExit(), "GeneratorExit"),
    "stops an iteration": (StopIteration(), "StopIteration"),
    "recurses": (recurse, "RecursionError"),
    "hangs": (threading.Event().wait, "did not finish before the teardown deadline"),
    "returns a number": (3, "returned int"),
    "returns true": (True, "returned bool"),
    "returns bytes": (b"session revoked", "returned bytes"),
    "returns an exception": (lambda: ValueError("x"), "returned ValueError"),
    "cannot be printed": (Unprintable(), "Unprintable"),
    "says NUL": (TeardownFailed("a\x00b\x1b[31m\nc\u2028d\x7f"), "a b [31m c d"),
    "says half a character": (TeardownFailed("a\ud800b"), "a b"),
    "talks": (TeardownFailed("x" * 2_000_000), "x" * 500),
    "raises and talks": (ValueError("x" * 2_000_000), "ValueError: xxx"),
    "says no text": (TeardownFailed({"left": ["inbox"]}), "{'left': ['inbox']}"),
}


@pytest.mark.slow
def test_whatever_plugins_do_the_others_run_the_row_changes_and_the_client_gets_its_200(live):
    ran = threading.Event()
    live.service.timeout = 6  # what is slow to fail has to be told from what hangs
    misbehaving = {name: does(what) for name, (what, _) in MISBEHAVIOUR.items()}
    use(live, good=does(ran.set), **misbehaving)
    account_id = live.add_linkedin()
    answer = live.delete(account_id)
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert answer.headers["Teardown-Status"] == "partial"
    assert ran.is_set()
    assert live.row(account_id)["status"] == "disconnected"
    reasons = {orphan["plugin"]: orphan["reason"] for orphan in live.orphans()}
    begins = {name: begins for name, (_, begins) in MISBEHAVIOUR.items()}
    assert {name: reason[: len(begins[name])] for name, reason in reasons.items()} == begins
    assert max(map(len, reasons.values())) == 500
    assert all(reason.isprintable() for reason in reasons.values())


RETRY_AFTER = [
    (None, 0),
    (30, 30),
    (0.5, 0.5),
    ("30", 30),
    (-30, 0),
    (float("nan"), 0),
    (float("inf"), 7 * 24 * 3600),
    (float("-inf"), 0),
    (10**400, 7 * 24 * 3600),
    (8 * 24 * 3600, 7 * 24 * 3600),
    ("soon", 0),
    ([30], 0),
    (Odd(), 0),
]


def test_retry_after_is_taken_for_what_can_be_made_of_it(live):
    later = {repr(given): does(TeardownFailed("later", given)) for given, _ in RETRY_AFTER}
    use(live, **later)
    assert live.delete(live.add_email()).headers["Teardown-Status"] == "partial"
    asked = {o["plugin"]: o["next_attempt_at"] - o["created_at"] for o in live.orphans()}
    assert asked == {repr(given): timedelta(seconds=taken) for given, taken in RETRY_AFTER}


class Refused(TeardownFailed):
    """An author's own kind, which leaves out what the contract's would have set."""

    def __init__(self):
        Exception.__init__(self, "refused")


class Elsewhere(Exception):
    """Not ours, with attributes that mean something else."""

    retry_after = "never"
    permanent = True
    status = {"code": 401}


def test_only_a_permanent_teardown_failed_is_parked_at_once(live):
    use(
        live,
        permanent=does(TeardownFailed("no key", permanent=True)),
        third_argument=does(TeardownFailed("no key", None, True)),
        passing=does(TeardownFailed("busy")),
        refused=does(Refused()),
        elsewhere=does(Elsewhere()),
    )
    live.delete(live.add_email())
    orphans = live.orphans()
    assert len(orphans) == 5
    parked = {orphan["plugin"] for orphan in orphans if orphan["parked_at"]}
    assert parked == {"permanent", "third_argument"}


def test_teardown_failed_is_by_default_worth_another_attempt_at_any_time():
    error = TeardownFailed("session left")
    assert (str(error), error.retry_after, error.permanent) == ("session left", None, False)


@only("sqlite")
@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (None, []),
        ("session revoked", ["session revoked"]),
        ("session\nrevoked\x00", ["session revoked"]),
        ("x" * 2_000_000, ["x" * 500]),
        (Text("session revoked"), ["unprintable Text"]),
    ],
)
def test_what_a_plugin_says_it_did_is_logged_as_one_clean_line(live, events, said, logged):
    use(live, crm=does(said))
    assert live.delete(live.add_email()).headers["Teardown-Status"] == "complete"
    assert live.orphans() == []
    done = [fields["outcome"] for event, fields in events() if event == "teardown.done"]
    assert done == logged


@only("sqlite")
@pytest.mark.parametrize(
    ("error", "said", "tracebacks"),
    [
        (ValueError("boom"), ("plugin.failed", "ERROR"), 1),
        (SystemExit(3), ("plugin.failed", "ERROR"), 1),
        (TeardownFailed("left"), ("teardown.failed", "WARNING"), 0),
        (UpstreamFailed("429"), ("teardown.failed", "WARNING"), 0),
    ],
)
def test_what_a_plugin_did_not_announce_is_its_fault_in_requests_and_in_retries(
    live, events, error, said, tracebacks
):
    use(live, crm=does(error))
    live.delete(live.add_email())
    live.make_due()
    live.retry()
    failed = [(event, f) for event, f in events() if event.endswith(".failed")]
    assert [(event, fields["levelname"]) for event, fields in failed] == [said] * 2
    assert {fields["plugin"] for _, fields in failed} == {"crm"}
    assert sum(bool(fields["exc_info"]) for _, fields in events()) == 2 * tracebacks


@only("sqlite")
def test_a_wrong_return_value_is_a_fault_without_a_traceback(live, events):
    use(live, crm=lambda account: 42)
    live.delete(live.add_email())
    [fields] = [fields for event, fields in events() if event == "plugin.failed"]
    assert (fields["levelname"], fields["hook"]) == ("ERROR", "teardown_account")
    assert (fields["outcome"], fields["exc_info"]) == ("returned int instead of None or text", None)


def test_the_deadline_is_for_all_hooks_together(live):
    live.service.timeout = 1
    hang = does(threading.Event().wait)
    use(live, one=hang, two=hang, three=hang, quick=does("done"))
    account_id = live.add_email()
    started = time.monotonic()
    assert live.delete(account_id).headers["Teardown-Status"] == "partial"
    assert time.monotonic() - started < 2 * live.service.timeout
    assert {orphan["plugin"] for orphan in live.orphans()} == {"one", "two", "three"}
    assert live.row(account_id) is None


@only("sqlite")
def test_without_a_hook_nobody_waits_for_the_deadline(live):
    live.service.timeout = 20
    live.service.plugins = Plugins(
        [plugin_of("crm", ACCOUNT_TYPES={"other"}, teardown_account=hookimpl(does(None)))]
    )
    account_id = live.add_email()
    started = time.monotonic()
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert time.monotonic() - started < live.service.timeout / 2


@only("sqlite")
def test_hooks_of_one_account_run_at_the_same_time(live):
    live.service.timeout = 25
    together = meeting(2)
    use(live, one=together, two=together)
    assert live.delete(live.add_email()).headers["Teardown-Status"] == "complete"


def test_more_requests_wait_for_providers_than_there_are_database_connections(live):
    live.service.timeout = 25
    waiting = CONNECTIONS + 5
    use(live, crm=meeting(waiting))
    accounts = [live.add_email() for _ in range(waiting)]
    with ThreadPoolExecutor(waiting) as clients:
        answers = list(clients.map(live.delete, accounts))
    assert {answer.headers["Teardown-Status"] for answer in answers} == {"complete"}


def others_state(live) -> list[str]:
    """Return what everybody else's connections to the database are doing."""
    if isinstance(live.database, Sqlite):
        path = live.database_url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=0)
        try:  # fails at once if anybody has a transaction, even one that only reads
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return ["in a transaction"] if busy else []
        finally:
            connection.close()
    with psycopg.connect(live.database_url) as connection:
        return [
            state
            for (state,) in connection.execute(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND state <> 'idle'"
                " AND backend_type = 'client backend'"  # autovacuum is active, and nobody's
            )
        ]


def connections_in_use(live) -> int:
    if isinstance(live.database, Sqlite):
        return len(live.database._in_use)
    return live.database.pool.in_use()


def test_no_transaction_is_open_and_no_connection_is_held_while_a_provider_is_awaited(live):
    seen = []

    def look(account):
        # Not at once: with the first key a sweep begins, and uses one, or has one more made.
        wait_until(lambda: (others_state(live), connections_in_use(live)) == ([], 0))
        seen.append(account.id)

    use(live, crm=look)
    accounts = live.add_email(), live.add_linkedin()
    assert live.delete(accounts[0]).headers["Teardown-Status"] == "complete"
    assert live.delete(accounts[1], Idempotency_Key="k").headers["Teardown-Status"] == "complete"
    assert seen == [*accounts]


@only("sqlite")
def test_a_hook_sees_the_account_and_nothing_of_the_request(live):
    seen = []
    use(live, crm=lambda account: seen.append((account, has_request_context())))
    account_id = live.add_email(display_name="Ada")
    live.delete(account_id)
    ((snapshot, in_request),) = seen
    assert (snapshot.id, snapshot.user_id, snapshot.display_name) == (
        account_id,
        live.user_id,
        "Ada",
    )
    assert not in_request


@only("sqlite")
def test_a_snapshot_that_a_plugin_breaks_open_is_its_own(live):
    def vandal(account):
        object.__setattr__(account, "id", "another")
        raise TeardownFailed("left")

    use(live, vandal=vandal)
    account_id = live.add_email()
    assert live.delete(account_id).status_code == 200
    assert live.row(account_id) is None
    assert [orphan["account_id"] for orphan in live.orphans()] == [account_id]


@only("sqlite")
def test_a_hook_that_ends_after_the_deadline_changes_nothing_any_more(live):
    live.service.timeout = 0.3
    late, ended = threading.Event(), threading.Event()

    def slow(account):
        late.wait(20)
        ended.set()
        return "done"

    use(live, crm=slow)
    account_id = live.add_email()
    assert live.delete(account_id).headers["Teardown-Status"] == "partial"
    late.set()
    assert ended.wait(20)
    assert [orphan["plugin"] for orphan in live.orphans()] == ["crm"]
    assert live.delete(account_id).status_code == 404


def test_a_machine_without_threads_left_leaves_an_orphan_and_waits_for_nobody(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    plugin = plugin_of("crm", teardown_account=hookimpl(does("done")))
    hooks = Plugins([plugin]).concerned(account())
    started = time.monotonic()
    (outcome,) = teardown.call_all(hooks, account(), started + 20)
    assert outcome.failure == "RuntimeError: can't start new thread"
    assert time.monotonic() - started < 10


SITE = {
    "exits": "raise SystemExit",
    "hangs": "time.sleep(3600)",
    "interrupts": "raise KeyboardInterrupt",
    "talks": r"raise ValueError('\x1b[31m\n' + 'x' * 2_000_000)",
    "works": "return 'done'",
}


@only("postgresql")
@pytest.mark.parametrize(("worker_class", "log_format"), [("gevent", "json"), ("gthread", "text")])
def test_under_gunicorn_no_plugin_harms_the_others_the_log_or_the_shutdown(
    stack, gunicorn, tmp_path, worker_class, log_format
):
    for name, body in SITE.items():
        source = (
            "import time\nfrom puffle_accounts import hookimpl\n"
            f"@hookimpl\ndef teardown_account(account):\n    {body}\n"
        )
        write_distribution(tmp_path / "site", name, source)
    server = gunicorn(
        *("--worker-class", worker_class),
        PYTHONPATH=str(tmp_path / "site"),
        PUFFLE_LOG_FORMAT=log_format,
        PUFFLE_TEARDOWN_TIMEOUT="1",
    )
    account_id = stack.add_linkedin()
    answer = stack.delete(account_id, Connection="close")  # a kept one would delay the stop
    assert (answer.status_code, answer.headers["Teardown-Status"]) == (200, "partial")
    assert stack.row(account_id)["status"] == "disconnected"
    assert stack.sandbox.resources["unipile"] == set()
    assert {orphan["plugin"] for orphan in stack.orphans()} == set(SITE) - {"works"}
    began = clock.now()
    assert server.stop() == 0
    assert clock.now() - began < timedelta(seconds=20)
    log = server.log.read_text()
    assert log.count("Traceback (most recent call last)") == 3
    assert log.count("ValueError: ") < 4
    assert "\x1b" not in log
    assert "x" * 1000 not in log


def test_even_a_failure_that_cannot_be_looked_at_is_one(live):
    class Nasty(TeardownFailed):
        @property
        def retry_after(self):
            raise RuntimeError("no")

        @retry_after.setter
        def retry_after(self, value):
            pass

    def fail(account):
        raise Nasty("left")

    use(live, crm=fail)
    assert live.delete(live.add(type="smtp")).headers["Teardown-Status"] == "partial"
    [orphan] = live.orphans()
    assert orphan["reason"] == "raised Nasty, which raised RuntimeError"
