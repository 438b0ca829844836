"""The primary fails, is switched over, falls silent: nothing is lost, and nobody restarts us."""

from __future__ import annotations

import signal
import socket
import time
import uuid

import network
import pytest
from cluster import Cluster, Load
from support import Gunicorn, Stack, assert_problem

from puffle_accounts.database.pooled import CONNECTIONS

WORKERS = 2
SERVED = """
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""


@pytest.fixture
def cluster(request):
    with Cluster(synchronous=getattr(request, "param", True)) as servers:
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
        started.append(Gunicorn(stack, log, "--workers", str(WORKERS)).wait_until_ready())
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


def test_a_server_that_is_frozen_for_longer_than_a_statement_is_waited_for(service, cluster):
    stack = service(cluster.a.host, accounts=300)
    with Load(stack, stack.ids) as load:
        load.wait_for(100)
        cluster.a.signal(signal.SIGSTOP)
        time.sleep(13)
        cluster.a.signal(signal.SIGCONT)
        load.wait_for(200)
    assert_books_balance("frozen for 13 s", load, cluster.a)


@pytest.mark.skipif(not network.CAN_BE_MADE, reason="needs root, and ip of iproute2")
def test_packets_are_dropped_between_service_and_primary_for_a_while(service, cluster):
    with network.SilentNetwork(cluster.a.socket) as between:
        stack = service(between.host, accounts=300)
        with Load(stack, stack.ids) as load:
            load.wait_for(100)
            between.fall_silent()
            time.sleep(8)
            between.speak()
            load.wait_for(200)
    assert_books_balance("packets dropped for 8 s", load, cluster.a)


def test_while_a_synchronous_standby_is_away_no_more_connections_are_held_than_promised(
    service, cluster
):
    stack = service(cluster.a.host, accounts=600)
    held = []
    with Load(stack, stack.ids, clients=60) as load:
        load.wait_for(100)
        cluster.b.signal(signal.SIGSTOP)
        until = time.monotonic() + 16  # a commit is given up after ten
        while time.monotonic() < until:
            held.append(len(cluster.a.sql(SERVED)))
            time.sleep(0.2)
        cluster.b.signal(signal.SIGCONT)
        load.wait_for(500)
    assert_books_balance(f"standby away for 16 s, at most {max(held)} held", load, cluster.a)
    assert max(held) <= WORKERS * CONNECTIONS


@pytest.mark.parametrize("cluster", [False], indirect=True, ids=["asynchronous"])
def test_what_a_standby_had_not_received_comes_back_and_is_ended_by_a_repeat(service, cluster):
    stack = service(accounts=200)
    with Load(stack, stack.ids) as load:
        load.wait_for(60)
        cluster.b.stop_receiving()
        load.wait_for(60)
        cluster.a.kill()
        cluster.b.promote()
    back = left(cluster.b)
    tell("asynchronous, behind", load, len(back))
    assert back
    assert back <= set(load.done)
    with Load(stack, sorted(back)) as again:
        again.wait_for(len(back))
    assert left(cluster.b) == set()
