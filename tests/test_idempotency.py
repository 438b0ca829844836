"""Contract §1 and §2: a DELETE with an Idempotency-Key is safe to repeat."""

import contextlib
import socket
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import requests
from requests.adapters import HTTPAdapter
from support import assert_problem, only, wait_until
from urllib3 import Retry
from wire import Wire

from puffle_accounts import clock, idempotency, keys
from puffle_accounts.errors import DatabaseUnavailable

HOUR = timedelta(hours=1)
LONG_AGO = clock.stamp(clock.now() - timedelta(days=1000))


def stored_keys(stack):
    """Return the rows of `idempotency_keys`."""
    names = (
        "user_id",
        "key",
        "account_id",
        "token",
        "leased_until",
        "finished_at",
        "teardown_status",
    )
    rows = stack.sql(f"SELECT {', '.join(names)} FROM idempotency_keys")
    return [dict(zip(names, row, strict=True)) for row in rows]


def let_the_lease_run_out(stack):
    stack.sql("UPDATE idempotency_keys SET leased_until = ?", LONG_AGO)


def is_replay(answer):
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    return answer.headers.get("Idempotency-Replayed") == "true"


@pytest.fixture
def working(live):
    """Start a DELETE that waits for its provider; go on with it by `behave("unipile", …)`."""
    with ThreadPoolExecutor() as pool:

        def start(account, **headers):
            calls = len(live.sandbox.calls)
            live.sandbox.behave("unipile", "hang")
            future = pool.submit(live.delete, account, **headers)
            wait_until(lambda: len(live.sandbox.calls) > calls)
            return future

        yield start
        live.sandbox.behave("unipile", "ok")


# The header


@pytest.mark.parametrize(
    ("first", "second"),
    [("abc", "abc"), ('"abc"', "abc"), ("abc", '"abc"'), ('"abc"', '"abc"'), ('"a b"', "a b")],
)
def test_the_quoted_and_the_bare_form_are_the_same_key(live, first, second):
    account = live.add_linkedin()
    assert not is_replay(live.delete(account, Idempotency_Key=first))
    assert is_replay(live.delete(account, Idempotency_Key=second))


@only("sqlite")
@pytest.mark.parametrize("other", ["Abc", "abc.", "ab", '"', 'abc"', '"abc', '""abc""', "'abc'"])
def test_any_other_spelling_is_another_key(live, other):
    account = live.add_linkedin()
    assert not is_replay(live.delete(account, Idempotency_Key="abc"))
    assert not is_replay(live.delete(account, Idempotency_Key=other))


PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@pytest.mark.parametrize("form", ["{}", '"{}"'], ids=["bare", "quoted"])
@pytest.mark.parametrize("key", ["k", "k" * 255, f"{PRINTABLE} {PRINTABLE}"], ids=len)
def test_one_to_255_printable_characters_are_a_key(live, form, key):
    account = live.add_linkedin()
    assert not is_replay(live.delete(account, Idempotency_Key=form.format(key)))
    assert is_replay(live.delete(account, Idempotency_Key=form.format(key)))


@only("sqlite")
@pytest.mark.parametrize(
    "key",
    ["", '""', "k" * 256, f'"{"k" * 256}"', "a\tb", "\x7f", "sch\xf6n", "\xe2\x82\xac", "\xa0"],
    ids=lambda key: key.encode().hex()[:20],
)
def test_any_other_key_is_refused_before_anything_is_done(live, key):
    account = live.add_linkedin()
    answer = live.delete(account, Idempotency_Key=key.encode("latin-1"))
    assert_problem(answer, 400, "invalid_idempotency_key")
    assert live.row(account)["status"] == "connected"
    assert (live.sandbox.calls, stored_keys(live)) == ([], [])


# Once it has answered 200


def test_a_repeat_does_nothing_and_answers_as_the_first(live):
    account = live.add_linkedin()
    first = live.delete(account, Idempotency_Key="k")
    row = live.row(account)
    for id in (account, account.upper()):
        again = live.delete(id, Idempotency_Key="k")
        assert is_replay(again)
        assert again.headers["Teardown-Status"] == first.headers["Teardown-Status"] == "complete"
    assert "Idempotency-Replayed" not in first.headers
    assert live.row(account) == row
    assert len(live.sandbox.calls) == 1


def test_a_repeat_without_a_key_deletes_the_row(live):
    account = live.add_linkedin()
    assert live.delete(account).status_code == live.delete(account).status_code == 200
    assert live.row(account) is None


def test_a_repeat_after_the_row_is_gone_is_no_404(live):
    account = live.add_email()
    assert not is_replay(live.delete(account, Idempotency_Key="k"))
    assert is_replay(live.delete(account, Idempotency_Key="k"))
    assert_problem(live.delete(account, Idempotency_Key="another"), 404, "account_not_found")


def test_what_was_partial_is_replayed_as_partial(live):
    account = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    first = live.delete(account, Idempotency_Key="k")
    live.sandbox.behave("unipile", "ok")
    again = live.delete(account, Idempotency_Key="k")
    assert (is_replay(first), is_replay(again)) == (False, True)
    assert first.headers["Teardown-Status"] == again.headers["Teardown-Status"] == "partial"
    assert len(live.orphans()) == 1


def test_another_key_is_another_intention(live):
    account = live.add_linkedin()
    assert not is_replay(live.delete(account, Idempotency_Key="one"))
    assert not is_replay(live.delete(account, Idempotency_Key="two"))
    assert live.row(account) is None
    assert is_replay(live.delete(account, Idempotency_Key="one"))


def test_a_used_key_is_refused_for_another_account_even_one_that_never_was(live):
    live.delete(live.add_linkedin(), Idempotency_Key="k")
    other = live.add_linkedin()
    for account in (other, str(uuid.uuid4())):
        answer = live.delete(account, Idempotency_Key="k")
        assert_problem(answer, 422, "idempotency_key_reused")
    assert live.row(other)["status"] == "connected"
    assert len(live.sandbox.calls) == 1


def test_a_key_belongs_to_one_user(live):
    other_user = str(uuid.uuid4())
    with live.database.writing():
        other_api_key = keys.create(other_user, "other")
    mine, theirs = live.add_linkedin(), live.add_linkedin(user_id=other_user)
    assert not is_replay(live.delete(mine, Idempotency_Key="k"))
    assert not is_replay(live.delete(theirs, key=other_api_key, Idempotency_Key="k"))
    answer = live.delete(mine, key=other_api_key, Idempotency_Key="k")
    assert_problem(answer, 422, "idempotency_key_reused")
    assert live.row(theirs)["status"] == "disconnected"


def test_a_key_belongs_to_the_user_and_not_to_one_api_key(live):
    with live.database.writing():
        second_api_key = keys.create(live.user_id, "second")
    account = live.add_linkedin()
    assert not is_replay(live.delete(account, Idempotency_Key="k"))
    assert is_replay(live.delete(account, key=second_api_key, Idempotency_Key="k"))


def test_401_and_400_come_before_the_key(live):
    live.delete(live.add_linkedin(), Idempotency_Key="k")
    answer = live.delete(live.add_linkedin(), key="unknown", Idempotency_Key="k")
    assert_problem(answer, 401, "unauthorized")
    assert_problem(live.delete("not-an-id", Idempotency_Key="k"), 400, "invalid_account_id")


# Only a 200 is remembered. That a 500 frees the key is in test_failing_database.py.


def test_a_404_frees_the_key(live):
    assert_problem(live.delete(str(uuid.uuid4()), Idempotency_Key="k"), 404, "account_not_found")
    assert stored_keys(live) == []
    assert not is_replay(live.delete(live.add_linkedin(), Idempotency_Key="k"))


# While it is in use


def test_while_one_request_works_the_same_key_answers_409_at_once(live, working):
    account = live.add_linkedin()
    first = working(account, Idempotency_Key="k")
    assert_problem(live.delete(account, Idempotency_Key="k"), 409, "idempotency_key_in_use")
    assert not first.done()
    live.sandbox.behave("unipile", "ok")
    assert not is_replay(first.result())
    assert is_replay(live.delete(account, Idempotency_Key="k"))
    assert len(live.sandbox.calls) == 1


def test_while_one_request_works_another_account_answers_422(live, working):
    other = live.add_linkedin()
    first = working(live.add_linkedin(), Idempotency_Key="k")
    for account in (other, str(uuid.uuid4())):
        answer = live.delete(account, Idempotency_Key="k")
        assert_problem(answer, 422, "idempotency_key_reused")
    assert not first.done()
    assert live.row(other)["status"] == "connected"


def test_a_key_in_use_is_409_even_when_the_row_is_gone_by_then(live, working):
    account = live.add_linkedin()
    first = working(account, Idempotency_Key="k")
    live.sql("DELETE FROM accounts WHERE id = ?", account)
    assert_problem(live.delete(account, Idempotency_Key="k"), 409, "idempotency_key_in_use")
    live.sandbox.behave("unipile", "ok")
    assert not is_replay(first.result())


def test_other_keys_and_requests_without_one_are_not_held_up(live, working):
    first = working(live.add_linkedin(), Idempotency_Key="k")
    mailboxes = live.add_email(), live.add_email()
    assert not is_replay(live.delete(mailboxes[0], Idempotency_Key="other"))
    assert not is_replay(live.delete(mailboxes[1]))
    assert not first.done()


# The lease


def test_the_lease_lasts_for_the_teardown_deadline_and_ten_seconds(live, working):
    before = clock.now()
    working(live.add_linkedin(), Idempotency_Key="k")
    after = clock.now()
    lease = timedelta(seconds=float(live.environ["PUFFLE_TEARDOWN_TIMEOUT"]) + 10)
    (key,) = stored_keys(live)
    assert before + lease <= clock.moment(key["leased_until"]) <= after + lease


def _leave_behind_a_lease(stack, account, seconds_left):
    """Leave what a request leaves that was killed after it had taken its key."""
    until = clock.stamp(clock.now() + timedelta(seconds=seconds_left))
    stack.sql(
        "INSERT INTO idempotency_keys (user_id, key, account_id, token, leased_until)"
        " VALUES (?, 'k', ?, 'of the dead', ?)",
        *(stack.user_id, account, until),
    )


def test_a_lease_that_has_not_run_out_is_respected(live):
    account = live.add_linkedin()
    _leave_behind_a_lease(live, account, 5)
    assert_problem(live.delete(account, Idempotency_Key="k"), 409, "idempotency_key_in_use")
    answer = live.delete(live.add_linkedin(), Idempotency_Key="k")
    assert_problem(answer, 422, "idempotency_key_reused")
    assert live.sandbox.calls == []


@pytest.mark.parametrize("same_account", [True, False])
def test_a_lease_that_has_run_out_is_taken_over(live, same_account):
    account = live.add_linkedin()
    _leave_behind_a_lease(live, account if same_account else str(uuid.uuid4()), -0.1)
    assert not is_replay(live.delete(account, Idempotency_Key="k"))
    assert live.row(account)["status"] == "disconnected"
    assert is_replay(live.delete(account, Idempotency_Key="k"))


def test_a_lease_of_a_year_ahead_holds_nobody_up(live):
    """A clock was wrong; a lease of an hour may be that of a machine with a longer time-out."""
    account = live.add_linkedin()
    _leave_behind_a_lease(live, account, 365 * 86400)
    assert not is_replay(live.delete(account, Idempotency_Key="k"))
    live.sql("UPDATE idempotency_keys SET finished_at = NULL, leased_until = clock(?)", HOUR)
    assert_problem(live.delete(account, Idempotency_Key="k"), 409, "idempotency_key_in_use")


@pytest.mark.parametrize("mode", ["ok", "fail"])
def test_who_lost_the_lease_answers_409_and_changes_nothing(live, working, mode):
    account = live.add_linkedin()
    before = live.row(account)
    first = working(account, Idempotency_Key="k")
    live.sql("UPDATE idempotency_keys SET token = 'of the next one'")
    live.sandbox.behave("unipile", mode)
    assert_problem(first.result(), 409, "idempotency_key_in_use")
    assert (live.row(account), live.orphans()) == (before, [])
    assert [key["token"] for key in stored_keys(live)] == ["of the next one"]


def test_of_two_that_worked_under_one_key_one_alone_answers_200(live, working):
    account = live.add_linkedin()
    first = working(account, Idempotency_Key="k")
    let_the_lease_run_out(live)
    second = working(account, Idempotency_Key="k")
    live.sandbox.behave("unipile", "ok")
    assert not is_replay(second.result())
    assert_problem(first.result(), 409, "idempotency_key_in_use")
    assert live.row(account)["status"] == "disconnected"
    assert is_replay(live.delete(account, Idempotency_Key="k"))


def test_a_request_that_fails_late_does_not_free_its_successors_key(live, working):
    account = live.add_linkedin()
    first = working(account, Idempotency_Key="k")
    live.sql("UPDATE idempotency_keys SET token = 'of the next one'")
    live.sql("ALTER TABLE accounts RENAME TO elsewhere")
    live.sandbox.behave("unipile", "ok")
    assert_problem(first.result(), 500, "delete_failed")
    assert [key["token"] for key in stored_keys(live)] == ["of the next one"]


def test_where_the_answer_cannot_be_remembered_the_row_is_not_changed(live, working):
    account = live.add_linkedin()
    before = live.row(account)
    first = working(account, Idempotency_Key="k")
    live.sql("ALTER TABLE idempotency_keys RENAME TO elsewhere")
    live.sandbox.behave("unipile", "ok")
    assert_problem(first.result(), 500, "delete_failed")
    assert live.row(account) == before


# After 24 hours


def _finished(stack, hours):
    finished = clock.stamp(clock.now() - timedelta(hours=hours))
    stack.sql("UPDATE idempotency_keys SET finished_at = ?, leased_until = ?", *(finished,) * 2)


def test_a_key_is_remembered_for_24_hours(live):
    account = live.add_linkedin()
    live.delete(account, Idempotency_Key="k")
    _finished(live, 23.99)
    assert is_replay(live.delete(account, Idempotency_Key="k"))
    assert live.row(account)["status"] == "disconnected"


@pytest.mark.parametrize("same_account", [True, False])
def test_after_24_hours_a_key_is_forgotten(live, same_account):
    account = live.add_linkedin()
    live.delete(account if same_account else live.add_email(), Idempotency_Key="k")
    live.sql("DELETE FROM accounts WHERE id <> ?", account)
    _finished(live, 24.01)
    assert not is_replay(live.delete(account, Idempotency_Key="k"))
    assert is_replay(live.delete(account, Idempotency_Key="k"))


@pytest.mark.parametrize(("ahead", "is_kept"), [(1, True), (365 * 24, False)])
def test_an_answer_of_tomorrow_is_replayed_and_one_of_next_year_is_not(live, ahead, is_kept):
    """Better too long than too short: without the key the repeat deletes the row."""
    account = live.add_linkedin()
    live.delete(account, Idempotency_Key="k")
    _finished(live, -ahead)
    assert is_replay(live.delete(account, Idempotency_Key="k")) is is_kept
    assert (live.row(account) is not None) is is_kept


def test_forgotten_keys_are_deleted_by_and_by_and_remembered_ones_stay(live):
    now, days = clock.now(), {"old": 2, "abandoned": 2, "recent": 0.9, "next year": -365}
    for key, age in days.items():
        then = clock.stamp(now - timedelta(days=age))
        live.sql(
            "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(live.user_id, key, str(uuid.uuid4()), key, then),
            *((None, None) if key == "abandoned" else (then, "complete")),
        )
    live.delete(live.add_linkedin(), Idempotency_Key="new")
    wait_until(lambda: {key["key"] for key in stored_keys(live)} == {"recent", "new"})


# Two workers, kill -9, and a network that loses answers


@only("postgresql")
def test_fifty_at_once_through_two_servers_do_the_work_once(stack, gunicorn):
    urls = [gunicorn("--worker-class", worker).url for worker in ("gevent", "gthread")]
    account = stack.add_linkedin()
    headers = {"Authorization": f"Bearer {stack.key}", "Idempotency-Key": "k"}
    barrier = threading.Barrier(50)

    def delete(number):
        barrier.wait()
        url = f"{urls[number % 2]}/api/accounts/{account}"
        answer = requests.delete(url, headers=headers, timeout=60)
        return answer.status_code, answer.headers.get("Idempotency-Replayed")

    with ThreadPoolExecutor(50) as pool:
        answers = Counter(pool.map(delete, range(50)))
    assert answers.pop((200, None)) == 1
    assert set(answers) <= {(409, None), (200, "true")}
    assert len(stack.sandbox.calls) == 1
    assert stack.row(account)["status"] == "disconnected"


@contextlib.contextmanager
def no_commits(stack, account):
    """Keep everybody else from changing the account's row."""
    with contextlib.suppress(InterruptedError), stack.database.writing():
        stack.database.sql("UPDATE accounts SET status = status WHERE id = ?", account)
        yield
        raise InterruptedError  # roll back


def test_killed_between_the_providers_answer_and_the_commit_the_work_is_done_again(stack, gunicorn):
    server = gunicorn()
    account = stack.add_linkedin()
    stack.sandbox.behave("unipile", "hang")
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(stack.delete, account, Idempotency_Key="k")
        wait_until(lambda: stack.sandbox.calls)
        with no_commits(stack, account):
            stack.sandbox.behave("unipile", "ok")
            wait_until(lambda: "teardown.done" in server.log.read_text())
            server.kill()
    assert isinstance(lost.exception(), requests.ConnectionError)
    assert stack.row(account)["status"] == "connected"

    gunicorn()
    assert_problem(stack.delete(account, Idempotency_Key="k"), 409, "idempotency_key_in_use")
    let_the_lease_run_out(stack)
    assert not is_replay(stack.delete(account, Idempotency_Key="k"))
    assert (stack.row(account)["status"], stack.orphans()) == ("disconnected", [])
    assert len(stack.sandbox.calls) == 2
    assert is_replay(stack.delete(account, Idempotency_Key="k"))


@pytest.fixture
def lossy(live):
    """A TCP proxy in front of the service that loses the first answer; its URL."""
    host, port = live.url.removeprefix("http://").split(":")

    def serve(client, number):
        with socket.create_connection((host, int(port))) as service:
            service.sendall(client.recv(65536))
            answer = b"".join(iter(lambda: service.recv(65536), b""))
            if number > 1:
                client.sendall(answer)

    with Wire(serve) as proxy:
        yield f"http://127.0.0.1:{proxy.port}"


@pytest.mark.parametrize(
    ("headers", "status", "replayed"),
    [({"Idempotency-Key": "k"}, "disconnected", "true"), ({}, None, None)],
    ids=["with a key the row survives", "without it is gone"],
)
def test_a_client_that_repeats_by_itself_when_an_answer_is_lost(
    live, lossy, headers, status, replayed
):
    account = live.add_linkedin()
    headers = {"Authorization": f"Bearer {live.key}", "Connection": "close", **headers}
    with requests.Session() as client:
        client.mount("http://", HTTPAdapter(max_retries=Retry(total=2, backoff_factor=0)))
        answer = client.delete(f"{lossy}/api/accounts/{account}", headers=headers)
    assert answer.status_code == 200
    assert answer.headers.get("Idempotency-Replayed") == replayed
    row = live.row(account)
    assert (row and row["status"]) == status
    assert len(live.sandbox.calls) == 1


def test_a_machine_that_has_no_thread_left_for_the_sweep_still_serves(live, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "idempotency-sweep":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert live.delete(live.add_linkedin(), Idempotency_Key="k").status_code == 200


@only("sqlite")
def test_a_sweep_that_the_database_forbids_is_told_and_harms_nobody(live, events, monkeypatch):
    def away(keys):
        raise DatabaseUnavailable("out for lunch")

    monkeypatch.setattr(idempotency.IdempotencyKeys, "sweep", away)
    assert live.delete(live.add_linkedin(), Idempotency_Key="k").status_code == 200
    wait_until(lambda: "idempotency.not_swept" in dict(events()))
    assert dict(events())["idempotency.not_swept"]["reason"] == "out for lunch"


def test_very_many_keys_are_swept_a_few_at_a_time_and_none_that_is_remembered(stack, monkeypatch):
    """One statement about all of them would be given up, each hour anew."""
    monkeypatch.setattr(idempotency, "SWEPT", 3)
    fresh = idempotency.IdempotencyKeys(stack.database, HOUR)
    fresh.claim(stack.user_id, "fresh", str(uuid.uuid4()))
    far = clock.stamp(clock.now() + timedelta(days=1000))
    with stack.database.writing():
        for moment in [LONG_AGO] * 7 + [far] * 4:
            stack.database.sql(
                "INSERT INTO idempotency_keys (user_id, key, account_id, token, leased_until)"
                " VALUES (?, ?, ?, ?, ?)",
                *(stack.user_id, uuid.uuid4().hex, stack.user_id, uuid.uuid4().hex, moment),
            )
    swept, sql = [], stack.database.sql

    def spied(statement, *params):
        cursor = sql(statement, *params)
        swept.append(cursor.rowcount)
        return cursor

    monkeypatch.setattr(stack.database, "sql", spied)
    fresh.sweep()
    assert swept == [3, 3, 1, 3, 1]
    monkeypatch.undo()
    assert [row["key"] for row in stored_keys(stack)] == ["fresh"]
