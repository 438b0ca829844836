"""A database that goes away: what a gunicorn in front of it answers, and how it comes back."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from postgresql import postgres_server
from support import assert_problem, only, wait_until

CLIENTS = 4
UNKNOWN = "0d9a8a52-7f0c-4f38-9d0a-5f1d7a1c9b3e"

both_workers = pytest.mark.parametrize("worker", ["gevent", "gthread"])


@pytest.fixture
def postgres_of_its_own():
    """A server that may be stopped."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def database_url(postgres_of_its_own) -> str:
    """The database of this file's `stack`."""
    return postgres_of_its_own.get_uri()


@both_workers
def test_a_restart_under_load_costs_no_more_than_what_was_in_flight(
    stack, gunicorn, postgres_of_its_own, worker
):
    gunicorn("--worker-class", worker)
    accounts = [stack.add_linkedin(status="disconnected") for _ in range(50)]
    stack.database.close_all()
    statuses, ended = [], []

    def delete_on_and_on(mine: list[str]) -> None:
        while not ended:
            statuses.append(stack.delete(mine.pop() if mine else UNKNOWN).status_code)

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [
            pool.submit(delete_on_and_on, accounts[number::CLIENTS]) for number in range(CLIENTS)
        ]
        wait_until(lambda: 200 in statuses)
        postgres_of_its_own.stop()
        wait_until(lambda: statuses.count(503) > CLIENTS)
        postgres_of_its_own.start()
        since = len(statuses)
        wait_until(lambda: statuses[since:].count(404) > 10 * CLIENTS)
        ended.append(True)
    assert [client.exception() for client in clients] == [None] * CLIENTS
    assert set(statuses) <= {200, 404, 500, 503}
    assert statuses.count(500) <= CLIENTS
    assert set(statuses[-10:]) <= {200, 404}, "back by itself, and for good"


@only("sqlite")
def test_a_database_that_is_silent_is_a_503_for_all_at_once(stack, gunicorn):
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        gunicorn(
            "--worker-class",
            "gevent",
            DATABASE_URL=f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/db",
        )
        began = time.monotonic()
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(stack.delete, [UNKNOWN] * 30))
        took = time.monotonic() - began
    for answer in answers:
        assert_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert took < 20, "one time-out after the other would have been 90 s"


@both_workers
def test_a_key_that_could_not_be_freed_is_free_as_soon_as_the_database_answers(
    stack, gunicorn, postgres_of_its_own, worker
):
    gunicorn("--worker-class", worker, "--workers", "2", PUFFLE_TEARDOWN_TIMEOUT="10")
    account = stack.add_linkedin()
    stack.database.close_all()
    stack.sandbox._on_call = lambda _: postgres_of_its_own.stop()
    assert_problem(stack.delete(account, Idempotency_Key="k"), 500, "delete_failed")
    stack.sandbox._on_call = lambda _: None
    postgres_of_its_own.start()
    time.sleep(1)  # its lease has 20
    assert stack.delete(account, Idempotency_Key="k").status_code == 200
