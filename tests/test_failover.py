"""The primary fails, is switched over, falls silent: nothing is lost, and nobody restarts us."""

from __future__ import annotations

import signal
import socket
import time
import uuid

import pytest
from cluster import Cluster, Load
from support import Gunicorn, Stack, assert_problem

UNKNOWN = str(uuid.uuid4())


@pytest.fixture
def cluster():
    with Cluster() as servers:
        yield servers


@pytest.fixture
def service(cluster, sandbox, tmp_path):
    """Start a gunicorn with these hosts in its URL, over tables that the primary has."""
    started = []

    def start(*hosts: str, accounts: int = 0) -> Stack:
        stack = Stack(cluster.url(cluster.a.host), sandbox)
        stack.ids = [stack.add_linkedin(status="disconnected") for _ in range(accounts)]
        stack.database.close_all()
        stack.environ["DATABASE_URL"] = cluster.url(*hosts)
        log = tmp_path / "gunicorn.log"
        started.append(Gunicorn(stack, log, "--workers", "2").wait_until_ready())
        stack.server = started[-1]
        return stack

    yield start
    for server in started:
        server.kill()


def left(node) -> set[str]:
    """Return the accounts that are still there."""
    return {str(account) for (account,) in node.sql("SELECT id FROM accounts")}


def tell(what: str, load: Load, lost: int) -> None:
    """Show the figures of docs/scaling.md: `pytest -s`."""
    print(
        f"\n{what}: {load.longest_pause():.1f} s without a 200, {dict(load.statuses)}, {lost} lost"
    )


def assert_books_balance(what: str, load: Load, primary) -> None:
    lost = load.lost(left(primary))
    tell(what, load, lost)
    assert lost == 0
    assert len(load.done) == len(load.accounts), "each was answered 200 in the end"
    assert set(load.statuses) <= {200, 409, 500, 503}


def test_a_primary_that_is_killed_and_its_standby_promoted(service, cluster):
    stack = service(accounts=600)
    with Load(stack, stack.ids) as load:
        load.wait_for(100)
        cluster.a.kill()
        cluster.b.promote()
        load.wait_for(500)
    assert_books_balance("kill -9, promoted", load, cluster.b)


def test_a_switch_over_while_the_old_primary_stays_up(service, cluster):
    stack = service(accounts=600)
    with Load(stack, stack.ids) as load:
        load.wait_for(100)
        cluster.a.set("default_transaction_read_only", "on")
        # What was being written has been written by then, on both.
        cluster.b.sql("SELECT pg_sleep(0.5)")
        cluster.b.promote()
        load.wait_for(500)
    assert_books_balance("switched over, old primary up", load, cluster.b)


def test_a_silent_host_before_the_good_one(service, cluster):
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        stack = service(f"127.0.0.1:{silent.getsockname()[1]}", cluster.a.host, accounts=200)
        with Load(stack, stack.ids) as load:
            load.wait_for(200)
    assert_books_balance("a silent host first", load, cluster.a)


def test_a_server_that_is_frozen_for_a_while(service, cluster):
    stack = service(cluster.a.host, accounts=600)
    with Load(stack, stack.ids) as load:
        load.wait_for(100)
        cluster.a.signal(signal.SIGSTOP)
        time.sleep(4)
        cluster.a.signal(signal.SIGCONT)
        load.wait_for(500)
    assert_books_balance("frozen for 4 s", load, cluster.a)


def test_a_standby_is_answered_503_before_a_provider_is_called(service, cluster):
    stack = service(cluster.b.host)
    account = str(uuid.uuid4())
    for _ in range(3):
        assert_problem(stack.delete(account), 503, "database_unavailable")
    assert stack.sandbox.calls == []
    assert "FAIL  database: takes no writes: " in stack.command("check").stdout
    cluster.b.promote()
    assert stack.delete(account).status_code == 404, "at once"


def test_a_primary_that_is_read_only_for_a_while(service, cluster):
    stack = service(cluster.a.host)
    account = str(uuid.uuid4())
    assert stack.delete(account).status_code == 404
    cluster.a.set("default_transaction_read_only", "on")
    for _ in range(3):
        assert_problem(stack.delete(account), 503, "database_unavailable")
    cluster.a.set("default_transaction_read_only", "off")
    assert stack.delete(account).status_code == 404
