"""Contract §1: 503 while nothing has been done, 500 when the row cannot be changed."""

import uuid

import pytest
import requests
from support import Gunicorn, Stack, assert_problem, free_port, only, postgres_server, wait_until

# 503


def _nobody_listens(tmp_path):
    return f"postgresql://user@127.0.0.1:{free_port()}/puffle"


def _no_tables(tmp_path):
    return f"sqlite:///{tmp_path / 'empty.db'}"


def _no_directory(tmp_path):
    return f"sqlite:///{tmp_path / 'nowhere' / 'puffle.db'}"


def _no_database(tmp_path):
    (tmp_path / "letter.db").write_text("Dear database, " * 1000)
    return f"sqlite:///{tmp_path / 'letter.db'}"


def assert_unavailable(answer):
    assert_problem(answer, 503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@only("sqlite")
@pytest.mark.parametrize("away", [_nobody_listens, _no_tables, _no_directory, _no_database])
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
        server.ensure_postgres_running()
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
