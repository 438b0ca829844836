"""Idempotency-Keys that cannot be given back since the database is away."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta

import pytest
from peewee import OperationalError
from support import only, wait_until

from puffle_accounts import owed
from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.idempotency import IdempotencyKeys, Sweeper
from puffle_accounts.owed import Owed

THREAD = "idempotency-free"


class Keys:
    """Gives keys back, once the database is there."""

    def __init__(self, away: Exception | None = None):
        self.freed: list[str] = []
        self.tried = 0
        self.away = away

    def free(self, token: str) -> None:
        self.tried += 1
        if self.away:
            raise self.away
        self.freed.append(token)


def at_work(*others):
    """Return the threads that pay, without others, which may be of an earlier test."""
    paying = [thread for thread in threading.enumerate() if thread.name == THREAD]
    return [thread for thread in paying if thread not in others]


@contextmanager
def away():
    raise DatabaseUnavailable("out for lunch")
    yield


def refuse(thread):
    raise RuntimeError("can't start new thread")


def stored(stack) -> list[str]:
    return [key for (key,) in stack.sql("SELECT key FROM idempotency_keys")]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(owed, "AGAIN", 0.01)


@pytest.mark.parametrize("away", [DatabaseUnavailable("away"), OperationalError("half away")])
def test_one_thread_that_holds_nobody_up_tries_until_the_database_answers(away):
    keys, debts, others = Keys(away), Owed(), at_work()
    for token in "ab":
        debts.add(token, time.monotonic() + 60)
        debts.pay_in_background(keys.free)
    wait_until(lambda: keys.tried > 2)
    assert [thread.daemon for thread in at_work(*others)] == [True]
    keys.away = None
    wait_until(lambda: not at_work(*others))
    assert keys.freed == ["a", "b"]

    debts.add("c", time.monotonic() + 60)
    debts.pay_in_background(keys.free)
    wait_until(lambda: keys.freed == ["a", "b", "c"])


def test_a_key_whose_lease_has_run_out_is_another_requests_and_is_not_given_back():
    keys, debts = Keys(), Owed()
    debts.add("old", time.monotonic() - 1)
    debts.add("new", time.monotonic() + 60)
    debts.pay(keys.free)
    debts.pay(keys.free)
    assert keys.freed == ["new"]


def test_two_may_pay_at_a_time():
    keys, debts = Keys(), Owed()

    def free(token: str) -> None:
        debts.pay(keys.free)  # as another thread may meanwhile
        keys.free(token)

    debts.add("a", time.monotonic() + 60)
    debts.pay(free)
    assert set(keys.freed) == {"a"}


def test_what_cannot_be_paid_is_owed_still():
    keys, debts = Keys(DatabaseUnavailable("away")), Owed()
    debts.add("a", time.monotonic() + 60)
    with pytest.raises(DatabaseUnavailable):
        debts.pay(keys.free)
    keys.away = None
    debts.pay(keys.free)
    assert keys.freed == ["a"]


def test_a_machine_without_threads_left_pays_later(monkeypatch):
    keys, debts = Keys(), Owed()
    debts.add("a", time.monotonic() + 60)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        debts.pay_in_background(keys.free)
    debts.pay_in_background(keys.free)
    wait_until(lambda: keys.freed == ["a"])


@only("sqlite")
def test_the_next_claim_pays_where_no_thread_could(stack, monkeypatch):
    keys, account = IdempotencyKeys(stack.database, timedelta(minutes=1)), str(uuid.uuid4())
    lease = keys.claim(stack.user_id, "owed", account)
    with monkeypatch.context() as broken:
        broken.setattr(stack.database, "autocommitting", away)
        broken.setattr(threading.Thread, "start", refuse)
        keys.free(lease)
    keys.claim(stack.user_id, "next", account)
    assert stored(stack) == ["next"]


@only("sqlite")
def test_a_claim_that_got_no_answer_is_given_back(stack, monkeypatch):
    @contextmanager
    def unanswered():
        with writing():
            yield
        raise DatabaseUnavailable("the answer was lost")

    keys, writing = IdempotencyKeys(stack.database, timedelta(minutes=1)), stack.database.writing
    with monkeypatch.context() as broken:
        broken.setattr(stack.database, "writing", unanswered)
        with pytest.raises(DatabaseUnavailable):
            keys.claim(stack.user_id, "k", str(uuid.uuid4()))
    assert stored(stack) == []


def test_old_keys_are_swept_once_an_hour_by_a_thread_that_holds_nobody_up():
    swept = []

    class Swept:
        def sweep(self):
            swept.append(threading.current_thread().daemon)

    sweep = Sweeper(Swept())
    sweep()
    sweep()
    wait_until(lambda: swept)
    time.sleep(0.05)
    assert swept == [True]


@only("sqlite")
def test_a_key_that_could_not_be_given_back_is_when_the_database_answers_again(
    stack, events, monkeypatch
):
    keys, account = IdempotencyKeys(stack.database, timedelta(minutes=1)), str(uuid.uuid4())
    lease = keys.claim(stack.user_id, "k", account)
    with monkeypatch.context() as broken:
        broken.setattr(stack.database, "autocommitting", away)
        keys.free(lease)
    told = {event: fields["reason"] for event, fields in events() if event.startswith("idem")}
    assert told == {"idempotency.not_freed": "out for lunch"}
    wait_until(lambda: stored(stack) == [])
