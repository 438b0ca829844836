"""Behind a pooler as it comes: nothing that a session keeps, and nothing that it refuses."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import orphanage
import psycopg
import pytest
from pgbouncer import PgBouncer, needed
from support import MIGRATIONS, assert_problem, only, wait_until

from puffle_accounts.account import ID_COLUMNS
from puffle_accounts.database import connect, schema
from puffle_accounts.database.pooled import WAIT
from puffle_accounts.errors import DatabaseUnavailable

pytestmark = [needed, only("postgresql")]

CLIENTS = 64
UNKNOWN = str(uuid.uuid4())

both_modes = pytest.mark.parametrize("mode", ["session", "transaction"])


@pytest.fixture
def pooler(stack):
    """Start a PgBouncer that nobody has configured, but for what is asked."""
    started = []

    def start(**settings) -> PgBouncer:
        started.append(PgBouncer(stack.database_url, **settings))
        return started[-1]

    yield start
    for each in started:
        each.__exit__()


def unkeyed(stack, account: str) -> int:
    return stack.delete(account).status_code


def keyed(stack, account: str) -> int:
    return stack.delete(account, Idempotency_Key=account).status_code


@both_modes
def test_two_connections_serve_64_clients_and_a_retrier(stack, gunicorn, pooler, mode):
    url = pooler(pool_mode=mode, default_pool_size=2).url
    orphanage.leave(stack, 20)
    gone = [stack.add_linkedin(status="disconnected") for _ in range(CLIENTS * 4)]
    kept = [stack.add_linkedin() for _ in range(CLIENTS)]
    gunicorn("--worker-class", "gevent", "--workers", "2", DATABASE_URL=url)
    with (
        ThreadPoolExecutor(CLIENTS) as clients,
        stack.start_command("orphans", "retry", "--every", "1", DATABASE_URL=url) as retrier,
    ):
        answers = [clients.submit(unkeyed, stack, account) for account in gone]
        answers += [clients.submit(keyed, stack, account) for account in kept]
        assert {answer.result() for answer in answers} == {200}
        wait_until(lambda: not stack.orphans())
        retrier.terminate()
    assert [stack.row(account) for account in gone] == [None] * len(gone)
    assert {stack.row(account)["status"] for account in kept} == {"disconnected"}


@both_modes
def test_two_upgrades_at_once_adopt_a_table_through_a_pooler(database_url, mode):
    """Neither an index that is made CONCURRENTLY nor their taking turns depends on a session."""
    times = "created_at timestamptz, updated_at timestamptz"
    texts = ", ".join(f"{name} text" for name in ("type", "status", "display_name", *ID_COLUMNS))
    with closing(psycopg.connect(database_url, autocommit=True)) as owner:
        owner.execute(
            f"CREATE TABLE accounts (id uuid PRIMARY KEY, user_id uuid, {texts}, {times})"
        )
        owner.execute("INSERT INTO accounts SELECT gen_random_uuid(), gen_random_uuid(), 'email'")
        with PgBouncer(database_url, pool_mode=mode) as pooler, ThreadPoolExecutor() as both:
            stores = [connect(pooler.url) for _ in range(2)]
            assert sorted(both.map(schema.upgrade, stores)) == [[], [*MIGRATIONS]]
            assert list(schema.flaws(stores[0])) == []
            for store in stores:
                store.close_all()
        left = owner.execute("SELECT 1 FROM pg_index WHERE NOT indisvalid").fetchall()
        assert (
            left + owner.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchall()
            == []
        )


@both_modes
def test_a_restart_of_the_pooler_under_load_is_got_over(stack, gunicorn, pooler, mode):
    bouncer = pooler(pool_mode=mode)
    gunicorn("--worker-class", "gevent", DATABASE_URL=bouncer.url)
    statuses, ended = [], []

    def ask_on_and_on() -> None:
        while not ended:
            statuses.append(unkeyed(stack, UNKNOWN))

    with ThreadPoolExecutor(8) as clients:
        asking = [clients.submit(ask_on_and_on) for _ in range(8)]
        wait_until(lambda: len(statuses) > 100)
        bouncer.stop()
        wait_until(lambda: 503 in statuses)
        bouncer.start()
        since = len(statuses)
        wait_until(lambda: statuses[since:].count(404) > 100)
        ended.append(True)
    assert [client.exception() for client in asking] == [None] * 8
    assert set(statuses) == {404, 503}
    assert set(statuses[-20:]) == {404}


def test_many_processes_take_turns_at_one_connection(pooler):
    """In session mode whoever keeps a connection keeps the others from the server."""
    url = pooler(pool_mode="session", default_pool_size=1).url
    stores = [connect(url) for _ in range(4)]
    served, turned_away = [0] * len(stores), []

    def use_until_each_was_served(number: int) -> None:
        while min(served) < 10 and not turned_away:
            try:
                with stores[number].writing():
                    served[number] += 1
            except DatabaseUnavailable as error:
                turned_away.append(error)

    with ThreadPoolExecutor(len(stores)) as users:
        list(users.map(use_until_each_was_served, range(len(stores))))
    assert turned_away == []
    assert stores[0].pool.take().patience == WAIT, "not what was left for connecting"
    for store in stores:
        store.close_all()


def test_statement_mode_is_refused_with_one_line(stack, gunicorn, pooler):
    url = pooler(pool_mode="statement").url
    [said] = [
        line
        for line in stack.command("check", DATABASE_URL=url).stdout.splitlines()
        if "database: " in line
    ]
    assert said.startswith("FAIL")
    assert "must be in session or transaction mode" in said
    gunicorn(DATABASE_URL=url)
    assert_problem(stack.delete(stack.add_email()), 503, "database_unavailable")
    assert orphanage.called_for(stack) == []


@both_modes
def test_the_next_one_finds_nothing_of_ours_in_the_session(stack, pooler, mode):
    url = pooler(pool_mode=mode, default_pool_size=1, server_reset_query="").url
    store = connect(url)
    for _ in range(10):  # so that statements would be prepared
        with store.writing():
            assert store.sql("SHOW lock_timeout").fetchone() == ("5s",)
        with store.reading():
            store.sql("SELECT ?::int", 1)
    store.close_all()
    with closing(psycopg.connect(url, prepare_threshold=None, autocommit=True)) as other:
        assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
        assert other.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_it_is_said_once_in_the_log_and_by_check(stack, gunicorn, pooler):
    url = pooler().url
    server = gunicorn("--workers", "1", DATABASE_URL=url)
    for _ in range(5):
        stack.delete(UNKNOWN)
    events = [line["event"] for line in server.lines()]
    assert events.count("database.pooled") == 1
    assert "database: answers, through a pooler" in stack.command("check", DATABASE_URL=url).stdout
