"""Contract §1: 503 while nothing has been done, 500 when the row cannot be changed."""

import logging
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from postgresql import postgres_server
from support import (
    Gunicorn,
    Stack,
    assert_problem,
    free_port,
    only,
    use,
    wait_until,
)
from wire import Wire

from puffle_accounts import TeardownFailed
from puffle_accounts.database import connect

UNKNOWN = str(uuid.uuid4())

# 503


def _nobody_listens(tmp_path):
    return f"postgresql://user@127.0.0.1:{free_port()}/puffle"


def _no_tables(tmp_path):
    return f"sqlite:///{tmp_path / 'empty.db'}"


def _no_database(tmp_path):
    (tmp_path / "letter.db").write_text("Dear database, " * 1000)
    return f"sqlite:///{tmp_path / 'letter.db'}"


def assert_unavailable(answer):
    assert_problem(answer, 503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@only("sqlite")
@pytest.mark.parametrize("away", [_nobody_listens, _no_tables, _no_database])
def test_without_its_database_the_service_asks_to_come_back(stack, gunicorn, tmp_path, away):
    account = stack.add_email()
    gunicorn(DATABASE_URL=away(tmp_path))
    for headers in ({}, {"Idempotency_Key": "k"}):
        assert_unavailable(stack.delete(account, **headers))
    assert stack.sandbox.calls == []
    assert stack.delete("not/a/path").status_code == 404
    assert requests.delete(f"{stack.url}/api/accounts/{account}").status_code == 401


def test_postgresql_may_be_stopped_and_started_under_the_service(sandbox, tmp_path):
    with postgres_server() as server:
        stack = Stack(server.get_uri(), sandbox)
        account = stack.add_email()
        stack.database.close_all()
        gunicorn = Gunicorn(stack, tmp_path / "gunicorn.log").wait_until_ready()
        assert stack.delete(str(uuid.uuid4())).status_code == 404
        server.stop()
        assert_unavailable(stack.delete(account))
        assert_unavailable(stack.delete(account, Idempotency_Key="k"))
        assert sandbox.calls == []
        server.start()
        wait_until(lambda: stack.delete(account, Idempotency_Key="k").status_code == 200)
        assert (stack.row(account), len(sandbox.calls)) == (None, 3)
        stack.database.close_all()
        gunicorn.kill()


def test_the_database_may_fail_at_the_idempotency_key_alone(live):
    account = live.add_email()
    live.sql("ALTER TABLE idempotency_keys RENAME TO elsewhere")
    assert_unavailable(live.delete(account, Idempotency_Key="k"))
    assert (live.sandbox.calls, live.row(account)["status"]) == ([], "connected")
    assert live.delete(account).status_code == 200


# 500

FOREIGN_KEYS = {"checked at once": "", "checked at commit": "DEFERRABLE INITIALLY DEFERRED"}


@pytest.fixture(params=FOREIGN_KEYS.values(), ids=FOREIGN_KEYS)
def sends(request, live):
    """Somebody else's table, whose rows forbid that their account is deleted."""
    live.sql(
        "CREATE TABLE sends (id INTEGER PRIMARY KEY,"
        f" account_id UUID NOT NULL REFERENCES accounts (id) {request.param})"
    )
    return lambda: [(id, str(account)) for id, account in live.sql("SELECT * FROM sends")]


@pytest.mark.parametrize("mode", ["ok", "fail"])
def test_a_forbidden_delete_leaves_everything_as_it_was_and_the_key_free(live, sends, mode):
    live.sandbox.behave("agentmail", mode)
    account = live.add_email()
    live.sql("INSERT INTO sends VALUES (1, ?)", account)
    before = live.row(account)
    assert_problem(live.delete(account, Idempotency_Key="k"), 500, "delete_failed")
    assert (live.row(account), sends(), live.orphans()) == (before, [(1, account)], [])

    live.sql("DELETE FROM sends")
    answer = live.delete(account, Idempotency_Key="k")
    assert (answer.status_code, live.row(account)) == (200, None)
    assert "Idempotency-Replayed" not in answer.headers


def test_a_row_that_cannot_be_changed_any_more_is_a_failed_delete(live):
    account = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    live.sandbox._on_call = lambda _: live.sql("ALTER TABLE accounts RENAME TO elsewhere")
    assert_problem(live.delete(account), 500, "delete_failed")
    live.sql("ALTER TABLE elsewhere RENAME TO accounts")
    assert (live.row(account)["status"], live.orphans()) == ("connected", [])


# A fault of the service itself


def assert_internal_error(answer, caplog):
    assert_problem(answer, 500, "internal_error")
    assert "not known" in answer.json()["detail"]
    assert "safe" in answer.json()["detail"]
    [record] = [each for each in caplog.records if each.getMessage() == "request.failed"]
    assert record.exc_info, "the log has the traceback"


@only("sqlite")
def test_the_reason_is_the_first_error_and_not_the_rollback_that_failed_after_it(live, events):
    """SQLite has rolled back by itself by then."""
    account = live.add_linkedin()
    live.sql(
        "CREATE TRIGGER full BEFORE UPDATE ON accounts"
        " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
    )
    assert_problem(live.delete(account, Idempotency_Key="k"), 500, "delete_failed")
    [fields] = [fields for event, fields in events() if event == "account.kept"]
    assert "disk is full" in str(fields["exc_info"][1])
    assert "disk is full" in fields["reason"]


def test_a_statement_that_the_database_refuses_is_not_called_its_absence(live, caplog):
    account = live.add_email()
    live.sql("ALTER TABLE api_keys RENAME COLUMN revoked_at TO elsewhere")
    assert_internal_error(live.delete(account), caplog)
    assert live.sandbox.calls == []


def test_a_fault_after_the_row_was_changed_does_not_say_that_it_is_still_there(live, caplog):
    def break_(record):
        if record.getMessage() == "account.deleted":
            raise ZeroDivisionError
        return True

    account = live.add_email()
    logger = logging.getLogger("puffle_accounts.service")
    logger.addFilter(break_)
    try:
        assert_internal_error(live.delete(account), caplog)
    finally:
        logger.removeFilter(break_)
    assert live.row(account) is None


def test_a_retrier_does_not_wait_for_a_statement_to_become_right(stack):
    stack.sql("ALTER TABLE orphans RENAME COLUMN parked_at TO elsewhere")
    ended = stack.command("orphans", "retry", "--every", "60")
    assert ended.returncode == 1
    assert "Error: database: " in ended.stderr
    assert "database.unavailable" not in ended.stderr


# A database that answers and takes no writes


@pytest.fixture
def small_disk(live):
    """A file system of 2 MB that holds a table of the service, full to the brim."""
    folder = Path(tempfile.mkdtemp(prefix="puffle-disk-"))
    mount = ("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    [server] = parse_qs(urlsplit(live.database_url).query)["host"]
    shutil.chown(folder, Path(server).owner())
    with psycopg.connect(live.database_url, autocommit=True) as other:
        name = f"small_{folder.name[-8:]}"
        other.execute(f"""CREATE TABLESPACE "{name}" LOCATION '{folder}'""")
        other.execute(f'ALTER TABLE orphans SET TABLESPACE "{name}"')
    filler = folder / "filler"
    with suppress(OSError):
        filler.write_bytes(b"x" * 2**22)
    yield filler
    with psycopg.connect(live.database_url, autocommit=True) as other:
        other.execute("ALTER TABLE orphans SET TABLESPACE pg_default")
        other.execute(f'DROP TABLESPACE "{name}"')
    subprocess.run(("umount", folder), check=True)
    folder.rmdir()


@only("postgresql")
def test_on_a_full_disk_no_provider_is_called_in_vain_but_once(live, small_disk, events):
    live.sandbox.behave("unipile", "fail")
    account = live.add_linkedin()
    assert_problem(live.delete(account), 500, "delete_failed")
    called = len(live.sandbox.calls)
    for _ in range(3):
        assert_unavailable(live.delete(account))
    assert len(live.sandbox.calls) == called
    full = "takes no writes, its disk is full: could not extend file"
    assert full in live.command("check").stdout
    said = [fields.get("reason", "") for event, fields in events() if event != "teardown.failed"]
    assert [full in reason for reason in said] == [True] * 4, "a line for each request"
    small_disk.unlink()
    assert live.delete(account).status_code == 200
    assert len(live.orphans()) == 1


@only("sqlite")
def test_while_a_database_is_read_only_no_provider_is_called_in_vain_but_once(
    live, events, monkeypatch
):
    """As the file may be by its permissions, which count for nobody who is root."""
    account = live.add_linkedin()
    live.database.close_all()
    plain = sqlite3.connect

    def open_read_only(*arguments, **settings):
        conn = plain(*arguments, **settings)
        conn.execute("PRAGMA query_only = 1")
        return conn

    monkeypatch.setattr("peewee.sqlite3.connect", open_read_only)
    assert_problem(live.delete(account), 500, "delete_failed")
    called = len(live.sandbox.calls)
    assert called == 1
    for _ in range(3):
        assert_unavailable(live.delete(account))
    assert len(live.sandbox.calls) == called
    reasons = [fields["reason"] for event, fields in events() if event == "database.unavailable"]
    assert all("takes no writes: attempt to write a readonly" in reason for reason in reasons)
    monkeypatch.undo()
    assert live.delete(account).status_code == 200, "no restart is needed"


@only("sqlite")
def test_a_file_that_is_replaced_under_the_service_is_noticed(live, tmp_path):
    account = live.add_linkedin(status="disconnected")
    path, backup = Path(live.database.database), tmp_path / "backup.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    assert live.delete(account).status_code == 200
    for journal in ("-wal", "-shm"):  # as whoever restores a backup has to
        Path(f"{path}{journal}").unlink()
    os.replace(backup, path)
    assert live.delete(account).status_code == 200, "it is there again"
    with closing(sqlite3.connect(path)) as restored:
        assert restored.execute("SELECT count(*) FROM accounts").fetchone() == (0,)
    path.unlink()
    assert_unavailable(live.delete(account))


@only("sqlite")
def test_a_backup_that_sqlite_itself_writes_into_the_file_is_noticed(live, tmp_path):
    """As `.restore` does. Who overwrites the file by other means destroys it: nobody is told."""
    account = live.add_linkedin(status="disconnected")
    path, backup = Path(live.database.database), tmp_path / "backup.db"
    with closing(sqlite3.connect(path)) as running, closing(sqlite3.connect(backup)) as copy:
        running.backup(copy)
        assert live.delete(account).status_code == 200
        copy.backup(running)
    assert live.delete(account).status_code == 200, "it is there again"
    assert live.row(account) is None
    with closing(sqlite3.connect(path)) as fresh:
        assert fresh.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# PostgreSQL's own


@contextmanager
def losing(url: str, statement: bytes):
    """A proxy before PostgreSQL that loses the answer to the first such statement; its URL."""
    parts = urlsplit(url)
    [folder] = parse_qs(parts.query)["host"]
    lost = threading.Event()

    def relay(client, _):
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(f"{folder}/.s.PGSQL.5432")
            armed = threading.Event()

            def answers():
                with suppress(OSError):
                    while data := server.recv(65536):
                        if armed.is_set() and not lost.is_set():
                            lost.set()
                            client.shutdown(socket.SHUT_RDWR)
                            return
                        client.sendall(data)

            threading.Thread(target=answers, daemon=True).start()
            while data := client.recv(65536):
                if statement in data:
                    armed.set()
                server.sendall(data)

    with Wire(relay) as proxy:
        yield f"postgresql://postgres@127.0.0.1:{proxy.port}{parts.path}", lost


@only("postgresql")
@pytest.mark.parametrize(
    ("statement", "mode", "headers"),
    [
        (b"UPDATE accounts", "ok", {}),
        (b"COMMIT", "fail", {}),
        (b"UPDATE idempotency_keys", "ok", {"Idempotency-Key": "k"}),
    ],
    ids=["of one statement", "of a commit", "under a key"],
)
def test_a_change_whose_answer_is_lost_is_made_sure_of(stack, gunicorn, statement, mode, headers):
    stack.sandbox.behave("unipile", mode)
    account = stack.add_linkedin()
    with losing(stack.environ["DATABASE_URL"], statement) as (url, lost):
        gunicorn("--worker-class", "gevent", DATABASE_URL=url)
        assert stack.delete(account, **headers).status_code == 200
        assert lost.is_set()
    assert stack.row(account)["status"] == "disconnected"
    assert len(stack.orphans()) == (mode == "fail")


@only("postgresql")
def test_a_key_whose_claim_got_no_answer_is_free_at_once(stack, gunicorn):
    account = stack.add_linkedin()
    with losing(stack.environ["DATABASE_URL"], b"COMMIT") as (url, lost):
        gunicorn(DATABASE_URL=url)
        assert_unavailable(stack.delete(account, Idempotency_Key="k"))
        assert lost.is_set()
        assert stack.delete(account, Idempotency_Key="k").status_code == 200


@only("postgresql")
def test_a_database_that_was_away_for_a_moment_is_asked_again(live):
    def blink(account):
        live.database.close_all()

    use(live, crm=blink)
    account = live.add_email()
    assert live.delete(account).status_code == 200
    assert live.row(account) is None


@only("postgresql")
def test_deletes_of_one_account_do_not_lock_each_other_out(live):
    """All of them find the row gone, and write the same orphans."""

    def fail(account):
        time.sleep(random.random() / 50)
        raise TeardownFailed("left")

    use(live, a=lambda account: fail(account), b=lambda account: fail(account))
    for _ in range(6):
        account = live.add_email()
        with ThreadPoolExecutor() as pool, psycopg.connect(live.database_url) as other:
            other.execute("DELETE FROM accounts WHERE id = %s", [account])
            answers = [pool.submit(live.delete, account) for _ in range(3)]
            wait_until(lambda: live.sql("SELECT 1 FROM pg_locks WHERE NOT granted OFFSET 2"))
            other.commit()
            assert [answer.result().status_code for answer in answers] == [200] * 3


@only("postgresql")
def test_a_connection_that_falls_silent_is_given_up_and_its_look_up_made_again(live):
    live.database.patience = 0.5
    [(backend,)] = live.sql("SELECT pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)
    try:
        assert live.delete(UNKNOWN).status_code == 404
    finally:
        os.kill(backend, signal.SIGCONT)


@only("postgresql")
def test_what_is_given_up_is_cancelled_at_the_server_so_that_nobody_waits_there(live):
    account = live.add_linkedin(status="disconnected")
    live.database.patience = 1.0
    with psycopg.connect(live.database_url) as other:
        other.execute("SELECT 1 FROM accounts FOR UPDATE")
        live.sql("SET lock_timeout = 0")
        assert live.delete(account).status_code == 500
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: live.sql(waiting) == [])  # the server may take a moment


@contextmanager
def forgetful(url: str):
    """A proxy before PostgreSQL that may forget what goes through it, as a NAT does; its URL."""
    parts = urlsplit(url)
    [folder] = parse_qs(parts.query)["host"]
    forgotten: list[threading.Event] = []

    def relay(client, _):
        mine = threading.Event()
        forgotten.append(mine)
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(f"{folder}/.s.PGSQL.5432")

            def answers():
                with suppress(OSError):
                    while data := server.recv(65536):
                        client.sendall(data)

            threading.Thread(target=answers, daemon=True).start()
            while data := client.recv(65536):
                if not mine.is_set():
                    server.sendall(data)

    with Wire(relay) as proxy:
        address = f"postgresql://postgres@127.0.0.1:{proxy.port}{parts.path}"
        yield address, lambda: [each.set() for each in forgotten]


@only("postgresql")
def test_connections_that_a_nat_has_forgotten_cost_one_request_and_not_one_each(stack):
    with forgetful(stack.database_url) as (url, forget):
        store = connect(url)
        store.patience = 1.0
        barrier = threading.Barrier(6)

        def use_one(_):
            with store.reading():
                barrier.wait(10)

        with ThreadPoolExecutor(6) as six:
            list(six.map(use_one, range(6)))
        forget()
        waits = []
        for _ in range(6):
            began = time.monotonic()
            with store.reading():
                assert store.sql("SELECT 1").fetchone() == (1,)
            waits.append(time.monotonic() - began)
        store.close_all()
    assert sum(wait >= 1.0 for wait in waits) == 1


@only("postgresql")
def test_a_column_that_changes_its_type_is_got_over(live):
    for _ in range(10):  # so that the statement is prepared
        live.delete(UNKNOWN)
    live.sql("ALTER TABLE accounts ALTER COLUMN display_name TYPE varchar(500)")
    assert [live.delete(UNKNOWN).status_code for _ in range(10)] == [404] * 10


def test_whatever_the_default_isolation_is_a_row_may_change_under_a_reader(postgres_url):
    given = "&options=-c%20default_transaction_isolation%3Dserializable"
    store = connect(postgres_url + given)
    with store.writing():
        assert store.sql("SHOW transaction_isolation").fetchone() == ("read committed",)
    store.close_all()


def test_what_libpq_reads_from_the_environment_counts(postgres_url, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c search_path=tenant")
    store = connect(postgres_url)
    with store.reading():
        assert store.sql("SHOW search_path").fetchone() == ("tenant",)
    store.close_all()
