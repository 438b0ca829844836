"""What a DELETE does to an account's row, whatever happens to the row meanwhile."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from support import assert_problem, only, plugin_of, use, wait_until

from puffle_accounts import TeardownFailed, clock, hookimpl, snapshots
from puffle_accounts.account import METADATA_DEPTH
from puffle_accounts.database.sqlite import Sqlite
from puffle_accounts.hooks.registry import Plugins


def provider(act=lambda number: None):
    """Return a hook, and the list of the snapshots that it gets; `act` gets the call's number."""
    seen = []

    def hook(account):
        seen.append(account)
        return act(len(seen))

    return hook, seen


def nested(depth: int) -> str:
    """Return a JSON object with so many levels."""
    return '{"a":' * depth + "1" + "}" * depth


def assert_done(answer, teardown_status: str = "complete") -> None:
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert answer.headers["Teardown-Status"] == teardown_status


# The table


@pytest.mark.parametrize(
    ("type", "status", "called", "kept"),
    [
        ("linkedin", "disconnected", False, False),
        ("linkedin", "connected", True, True),
        ("linkedin", "credentials_required", True, True),
        ("linkedin", "DISCONNECTED", True, True),
        ("linkedin", "", True, True),
        ("linkedin", None, True, True),
        ("email", "connected", True, False),
        ("email", "disconnected", True, False),
        ("email", None, True, False),
        ("whatsapp", "connected", True, False),
        ("whatsapp", "disconnected", True, False),
    ],
)
def test_what_a_delete_does(live, type, status, called, kept):
    account_id = live.add(type, status=status, display_name="Ada", metadata={"crm": ["c-1"]})
    before = live.row(account_id)
    rows = []
    one, seen_by_one = provider(lambda _: rows.append(live.row(account_id)))
    two, seen_by_two = provider()
    use(live, one=one, two=two)
    began = clock.now()
    assert_done(live.delete(account_id))

    assert len(seen_by_one) == len(seen_by_two) == called
    if called:
        assert seen_by_one == seen_by_two
        snapshot = seen_by_one[0]
        assert (snapshot.id, snapshot.type, snapshot.status) == (account_id, type, status)
        assert snapshot.metadata["crm"] == ("c-1",)
        assert rows == [before]  # hooks first, then the row
    after = live.row(account_id)
    if not kept:
        assert after is None
        return
    updated_at = after.pop("updated_at")
    assert began <= updated_at <= clock.now()
    assert after == {k: v for k, v in before.items() if k != "updated_at"} | {
        "status": "disconnected"
    }


def test_a_soft_deleted_account_is_deleted_by_the_next_delete_without_a_provider(live):
    hook, seen = provider()
    use(live, crm=hook)
    account_id = live.add_linkedin()
    assert_done(live.delete(account_id))
    assert_done(live.delete(account_id))
    assert live.row(account_id) is None
    assert live.delete(account_id).status_code == 404
    assert len(seen) == 1


def contents(live, *without: str) -> dict[str, list]:
    """Return all rows of all tables but these."""
    with live.database.reading():
        tables = set(live.database.get_tables()) - set(without)
    return {table: sorted(live.sql(f"SELECT * FROM {table}"), key=repr) for table in tables}


def test_nothing_but_the_accounts_own_row_is_touched(live):
    live.sql("CREATE TABLE conversations (account_id TEXT, message TEXT)")
    ended = [live.add_linkedin(), live.add_linkedin(status="disconnected"), live.add_email()]
    others = [live.add_linkedin(), live.add_email()]
    for account_id in (*ended, *others):
        live.sql("INSERT INTO conversations VALUES (?, 'sent')", account_id)
    tables, rows = contents(live, "accounts"), [live.row(other) for other in others]
    for account_id in ended:
        assert_done(live.delete(account_id))
    assert contents(live, "accounts") == tables
    assert [live.row(other) for other in others] == rows


def refer_to(live, account_id: str) -> None:
    """Let somebody else's table hold on to the account."""
    kind = "TEXT" if isinstance(live.database, Sqlite) else "UUID"
    live.sql(f"CREATE TABLE messages (account_id {kind} NOT NULL REFERENCES accounts (id))")
    live.sql("INSERT INTO messages VALUES (?)", account_id)


def fail(number):
    raise TeardownFailed("left")


@pytest.mark.parametrize("act", [lambda number: "done", fail])
def test_a_foreign_key_that_forbids_the_delete_leaves_all_as_it_was(live, act):
    hook, seen = provider(act)
    use(live, crm=hook)
    account_id = live.add_email()
    refer_to(live, account_id)
    before = contents(live)
    assert_problem(live.delete(account_id), 500, "delete_failed")
    assert contents(live) == before
    assert len(seen) == 1
    live.sql("DELETE FROM messages")
    assert live.delete(account_id).status_code == 200
    assert live.row(account_id) is None


def test_a_foreign_key_does_not_hinder_a_soft_delete(live):
    account_id = live.add_linkedin()
    refer_to(live, account_id)
    assert_done(live.delete(account_id))
    assert live.row(account_id)["status"] == "disconnected"


@pytest.mark.parametrize(
    "metadata",
    ["[1]", '"text"', "null", nested(METADATA_DEPTH + 1), f'{{"a": 1{"0" * 5000}}}'],
)
def test_metadata_that_is_no_object_does_not_keep_an_account_from_being_ended(live, metadata):
    hook, seen = provider()
    use(live, crm=hook)
    account_id = live.add_email()
    live.sql("UPDATE accounts SET metadata = ?", metadata)
    assert_done(live.delete(account_id))
    assert live.row(account_id) is None
    assert [dict(snapshot.metadata) for snapshot in seen] == [{}]


@only("sqlite")
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metadata", "{"),
        ("created_at", "yesterday"),
        ("created_at", "0001-01-01 00:00:00+05:00"),
        ("updated_at", 1.5),
    ],
)
def test_a_cell_that_cannot_be_read_is_left_out_and_logged(live, events, column, value):
    hook, seen = provider()
    use(live, crm=hook)
    account_id = live.add_email()
    live.sql(f"UPDATE accounts SET {column} = ?", value)
    assert_done(live.delete(account_id))
    assert [getattr(snapshot, column) or None for snapshot in seen] == [None]
    [fields] = [fields for event, fields in events() if event == "account.unreadable"]
    assert (fields["account"], fields["column"]) == (account_id, column)


@only("postgresql")
@pytest.mark.parametrize("type", ["timestamptz", "timestamp"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "10000-01-01", "0044-03-15 BC"])
def test_a_time_that_python_has_none_for_is_left_out(live, type, moment):
    hook, seen = provider()
    use(live, crm=hook)
    account_id = live.add_email()
    live.sql(f"ALTER TABLE accounts ALTER COLUMN updated_at TYPE {type}")
    live.sql(f"UPDATE accounts SET updated_at = '{moment}'")
    assert_done(live.delete(account_id))
    assert [snapshot.updated_at for snapshot in seen] == [None]


@only("sqlite")
@pytest.mark.parametrize("column", ["display_name", "metadata", "updated_at"])
def test_bytes_that_are_no_text_do_not_keep_an_account_from_being_ended(live, column):
    account_id = live.add_email()
    live.sql(f"UPDATE accounts SET {column} = CAST(x'ff41' AS TEXT)")
    assert_done(live.delete(account_id))


@pytest.mark.parametrize("value", ['"\\u0000"', '"\\ud800"', "NaN", "1e999"])
def test_metadata_that_a_database_might_not_store_makes_an_orphan_all_the_same(live, value):
    def fail(account):
        raise TeardownFailed("contact is left")

    use(live, crm=fail)
    account_id = live.add_email()
    if live.database_url.startswith("postgresql"):
        live.sql("ALTER TABLE accounts ALTER COLUMN metadata TYPE text USING metadata::text")
    live.sql("UPDATE accounts SET metadata = ?", f'{{"a": {value}}}')
    assert_done(live.delete(account_id), "partial")
    assert len(live.orphans()) == 1


def test_an_id_in_metadata_that_changes_meanwhile_is_not_forgotten(live):
    account_id = live.add_linkedin(metadata={"contact": "c-1"})

    def act(number):
        if number == 1:
            change = {"status": "credentials_required", "metadata": {"contact": "c-2"}}
            live.change(account_id, **change)
            raise TeardownFailed("contact is left")

    hook, _ = provider(act)
    use(live, crm=hook)
    assert_done(live.delete(account_id), "partial")
    assert [orphan["account"]["metadata"] for orphan in live.orphans()] == [{"contact": "c-1"}]


@pytest.mark.parametrize("depth", [METADATA_DEPTH, METADATA_DEPTH + 1, 500, 900, 1200, 100_000])
def test_metadata_is_read_down_to_a_depth_that_does_not_depend_on_the_python(events, depth):
    row = [nested(depth) if name == "metadata" else name for name in snapshots.COLUMNS]
    is_read = bool(snapshots.from_row(row).metadata)
    left_out = [fields["column"] for event, fields in events() if event == "account.unreadable"]
    assert is_read == (depth <= METADATA_DEPTH)
    assert ("metadata" in left_out) == (not is_read)


# The compare-and-set

IDS = ("provider_account_id", "email_address", "agentmail_inbox_id", "instantly_account_id")


@pytest.mark.parametrize(("before", "after"), [("old", "new"), (None, "new"), ("old", None)])
@pytest.mark.parametrize(
    ("type", "column"),
    [("linkedin", "status"), ("linkedin", IDS[0]), *(("email", column) for column in IDS[1:])],
)
def test_a_row_that_changes_meanwhile_is_looked_at_afresh(live, type, column, before, after):
    account_id = live.add(type, **{column: before})
    hook, seen = provider(
        lambda number: live.change(account_id, **{column: after}) if number == 1 else "done"
    )
    use(live, crm=hook)
    assert_done(live.delete(account_id))
    assert [getattr(snapshot, column) for snapshot in seen] == [before, after]
    row = live.row(account_id)
    assert (row and row["status"]) == ("disconnected" if type == "linkedin" else None)


def test_other_columns_may_change_meanwhile_and_keep_what_they_got(live):
    account_id = live.add_linkedin()
    others = {"display_name": "Grace", "metadata": {"a": 1}}

    def change(_):
        live.change(account_id, updated_at=None, **others)
        live.sql("UPDATE accounts SET signature = 'x', daily_limit = 7")

    hook, seen = provider(change)
    use(live, crm=hook)
    assert_done(live.delete(account_id))
    assert len(seen) == 1
    row = live.row(account_id)
    assert {name: row[name] for name in others} == others
    assert live.sql("SELECT signature, daily_limit FROM accounts") == [("x", 7)]
    assert (row["status"], row["updated_at"] is None) == ("disconnected", False)


def test_an_email_account_that_is_called_disconnected_meanwhile_is_deleted_all_the_same(live):
    account_id = live.add_email()
    hook, seen = provider(lambda number: live.change(account_id, status="disconnected"))
    use(live, crm=hook)
    assert_done(live.delete(account_id))
    assert live.row(account_id) is None
    assert len(seen) == 2


def test_an_inbox_that_is_made_meanwhile_is_not_forgotten(live):
    account_id = live.add_email(agentmail_inbox_id=None)

    def make(number):
        if number == 1:
            live.sandbox.add("agentmail", "made@outreach.example")
            live.change(account_id, agentmail_inbox_id="made@outreach.example")

    crm = plugin_of("crm", teardown_account=hookimpl(provider(make)[0]))
    live.service.plugins = Plugins([*live.service.plugins.all, crm])
    assert_done(live.delete(account_id))
    assert live.row(account_id) is None
    assert live.sandbox.resources == {"unipile": set(), "instantly": set(), "agentmail": set()}


def somebody(live):
    """Return a connection of somebody else to the database."""
    if isinstance(live.database, Sqlite):
        path = live.database_url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection
    return psycopg.connect(live.database_url)


def waits_for_somebody(live) -> bool:
    """Whether the service waits for somebody else's transaction to end."""
    if isinstance(live.database, Sqlite):  # SQLite does not tell; it has had the time
        return bool(live.database._in_use)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = ?"
    return bool(live.sql(waiting, "Lock"))


def test_a_reconnect_between_the_look_and_the_delete_is_not_deleted_unrevoked(live):
    hook, seen = provider(lambda number: "revoked")
    use(live, crm=hook)
    account_id = live.add_linkedin(status="disconnected")
    with closing(somebody(live)) as other, ThreadPoolExecutor(1) as client:
        other.execute("UPDATE accounts SET status = 'connected', provider_account_id = 'new'")
        answer = client.submit(live.delete, account_id)
        time.sleep(0.5)
        wait_until(lambda: waits_for_somebody(live))
        other.commit()
        assert_done(answer.result())
    assert [(snapshot.status, snapshot.provider_account_id) for snapshot in seen] == [
        ("connected", "new")
    ]
    assert live.row(account_id)["status"] == "disconnected"


def test_a_row_that_never_stops_changing_stays_after_three_rounds(live):
    account_id = live.add_linkedin()
    hook, seen = provider(lambda number: live.change(account_id, status=f"state {number}"))
    use(live, crm=hook)
    before = live.row(account_id)
    assert_problem(live.delete(account_id), 500, "delete_failed")
    assert len(seen) == 3
    assert live.row(account_id) == before | {"status": "state 3"}
    assert live.orphans() == []


def test_all_rounds_share_one_deadline(live):
    live.service.timeout = 1
    account_id = live.add_linkedin()
    mover, seen = provider(lambda number: live.change(account_id, status=f"state {number}"))
    use(live, mover=mover, hung=provider(lambda number: threading.Event().wait())[0])
    started = time.monotonic()
    assert_done(live.delete(account_id), "partial")
    assert time.monotonic() - started < 2 * live.service.timeout
    assert len(seen) == 1
    assert {orphan["plugin"] for orphan in live.orphans()} == {"mover", "hung"}
    assert live.row(account_id)["status"] == "disconnected"


# What was left under ids that the row does not name any more


def move_and_fail_at_first(live, account_id: str, **columns):
    def act(number):
        if number == 1:
            live.change(account_id, **columns)
            raise TeardownFailed("left")
        return "done"

    return act


@pytest.mark.parametrize("column", IDS)
def test_what_is_left_under_old_ids_stays_an_orphan_when_the_row_gets_new_ones(live, column):
    account_id = live.add("linkedin", **{column: "old"})
    hook, seen = provider(move_and_fail_at_first(live, account_id, **{column: "new"}))
    use(live, crm=hook)
    assert_done(live.delete(account_id), "partial")
    assert len(seen) == 2
    (orphan,) = live.orphans()
    assert orphan["account"][column] == "old"
    assert live.row(account_id)["status"] == "disconnected"
    assert live.row(account_id)[column] == "new"


UNTOUCHED = {
    "a trigger": {
        "postgresql": (
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER keep BEFORE DELETE OR UPDATE ON accounts"
            " FOR EACH ROW EXECUTE FUNCTION keep()",
        ),
        "sqlite": (
            "CREATE TRIGGER keep BEFORE DELETE ON accounts BEGIN SELECT RAISE(IGNORE); END",
            "CREATE TRIGGER keep2 BEFORE UPDATE ON accounts BEGIN SELECT RAISE(IGNORE); END",
        ),
    },
    "a rule": {
        "postgresql": (
            "CREATE RULE keep AS ON DELETE TO accounts DO INSTEAD NOTHING",
            "CREATE RULE keep2 AS ON UPDATE TO accounts DO INSTEAD NOTHING",
        ),
    },
}


@pytest.mark.parametrize("type", ["linkedin", "email"])
@pytest.mark.parametrize("by", UNTOUCHED)
def test_a_row_that_the_database_does_not_change_ends_at_once(live, events, by, type):
    """No provider is asked twice for what nobody will change."""
    kind = live.database_url.partition(":")[0]
    for statement in UNTOUCHED[by].get(kind, UNTOUCHED["a trigger"][kind]):
        live.sql(statement)
    account_id = live.add(type)
    hook, seen = provider()
    use(live, crm=hook)
    assert_problem(live.delete(account_id, Idempotency_Key="k"), 500, "delete_failed")
    assert (len(seen), live.row(account_id)["status"], live.orphans()) == (1, "connected", [])
    [kept] = [fields for event, fields in events() if event == "account.kept"]
    assert kept["outcome"] == "the database did not change its row"


def test_a_failure_that_the_next_round_makes_good_leaves_no_orphan(live):
    account_id = live.add_linkedin()
    act = move_and_fail_at_first(live, account_id, status="credentials_required")
    use(live, crm=provider(act)[0])
    assert_done(live.delete(account_id), "complete")
    assert live.orphans() == []


def test_three_sets_of_ids_that_could_not_be_torn_down_are_three_orphans_and_the_row(live):
    account_id = live.add_linkedin(provider_account_id="0")

    def act(number):
        live.change(account_id, provider_account_id=str(number))
        raise TeardownFailed("left")

    use(live, crm=provider(act)[0])
    assert_problem(live.delete(account_id), 500, "delete_failed")
    left = {orphan["account"]["provider_account_id"] for orphan in live.orphans()}
    assert left | {live.row(account_id)["provider_account_id"]} == {"0", "1", "2", "3"}
    assert live.row(account_id)["status"] == "connected"


# Somebody else was faster


@pytest.mark.parametrize(
    ("type", "change", "status"),
    [
        ("linkedin", "UPDATE accounts SET status = 'disconnected'", "disconnected"),
        ("linkedin", "DELETE FROM accounts", None),
        ("email", "DELETE FROM accounts", None),
    ],
)
@pytest.mark.parametrize(("fails", "said"), [(False, "complete"), (True, "partial")])
def test_that_somebody_else_reached_the_wanted_state_first_is_success(
    live, type, change, status, fails, said
):
    account_id = live.add(type)

    def act(number):
        live.sql(change)
        if fails:
            raise TeardownFailed("left")

    hook, seen = provider(act)
    use(live, crm=hook)
    assert_done(live.delete(account_id), said)
    assert len(seen) == 1
    row = live.row(account_id)
    assert (row and row["status"]) == status
    assert len(live.orphans()) == fails


@pytest.mark.parametrize(("type", "status"), [("linkedin", "disconnected"), ("email", None)])
def test_overlapping_deletes_of_one_account_both_succeed(live, type, status):
    live.service.timeout = 25
    both = threading.Barrier(2)

    def act(number):
        both.wait(20)

    use(live, crm=provider(act)[0])
    account_id = live.add(type)
    with ThreadPoolExecutor(2) as clients:
        for answer in clients.map(live.delete, [account_id] * 2):
            assert_done(answer)
    row = live.row(account_id)
    assert (row and row["status"]) == status


@only("postgresql")
@pytest.mark.parametrize("worker_class", ["gevent", "gthread"])
def test_under_gunicorn_overlapping_deletes_both_succeed_and_the_row_survives(
    stack, gunicorn, worker_class
):
    gunicorn("--worker-class", worker_class, PUFFLE_TEARDOWN_TIMEOUT="20")
    account_id = stack.add_linkedin()
    stack.sandbox.behave("unipile", "hang")
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(stack.delete, account_id) for _ in range(2)]
        wait_until(lambda: len(stack.sandbox.calls) == 2)
        stack.sandbox.behave("unipile", "ok")
        for answer in answers:
            assert_done(answer.result())
    assert stack.row(account_id)["status"] == "disconnected"
    assert stack.sandbox.resources["unipile"] == set()
