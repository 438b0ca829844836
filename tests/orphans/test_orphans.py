"""Contract §4: what is recorded, leased and held to be superseded, on each database."""

from __future__ import annotations

import math
import uuid
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from orphanage import failed, leave, ledger_of, let_pass, record
from support import assert_problem, only, plugin_of

from puffle_accounts import TeardownFailed, clock, hookimpl, logs, snapshots
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.live import read
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.record import orphan_id
from puffle_accounts.orphans.superseded import Verdict, look
from puffle_accounts.testing import account

MOMENT = timedelta(seconds=1)
NOON = datetime(2026, 11, 2, 12, tzinfo=timezone.utc)
METADATA = {"contact": "c-1", "näme": "Zoë 🦆", "deep": [1, 2.5, None, True, {"a": []}]}


def _claim(ledger, plugin="unipile", most=100, **parked):
    return ledger.claim(plugin, most, ledger.now(), **parked)


# Recording


def test_a_failed_hook_leaves_an_orphan_with_every_column(live):
    account_id = live.add_linkedin(display_name="Ada", metadata=METADATA)
    row, before = live.row(account_id), clock.now()
    live.sandbox.behave("unipile", "fail")
    answer = live.delete(account_id, X_Request_ID="r-1")
    assert answer.headers["Teardown-Status"] == "partial"
    [orphan] = live.orphans()
    assert uuid.UUID(orphan.pop("id"))
    assert before <= orphan.pop("created_at") <= orphan.pop("next_attempt_at") <= clock.now()
    snapshot = orphan.pop("account")
    assert {name: snapshot.pop(name) for name in ("created_at", "updated_at")} == {
        name: row[name].isoformat() for name in ("created_at", "updated_at")
    }
    assert snapshot == {name: row[name] for name in snapshots.COLUMNS if name in snapshot}
    assert len(snapshot) == 10
    assert orphan == {
        "plugin": "unipile",
        "account_id": account_id,
        "user_id": live.user_id,
        "reason": "Unipile: session revoke: 500 errors/unexpected_error",
        "attempts": 1,
        "leased_until": None,
        "parked_at": None,
        "request_id": "r-1",
    }


def test_each_plugin_that_fails_leaves_an_orphan_of_its_own(live):
    account_id = live.add_email()
    for provider in ("instantly", "agentmail"):
        live.sandbox.behave(provider, "fail")
    assert live.delete(account_id).status_code == 200
    assert live.row(account_id) is None
    assert {o["plugin"] for o in live.orphans()} == {"instantly", "agentmail"}


def test_a_snapshot_comes_back_as_the_same_account(live):
    account_id = live.add_email(status=None, metadata=METADATA, updated_at=None)
    with live.database.reading():
        before = read(live.database, (), account_id, live.user_id).account
    live.sandbox.behave("agentmail", "fail")
    live.delete(account_id)
    [orphan] = _claim(ledger_of(live), "agentmail")
    assert orphan.account == before
    assert hash(orphan.account) == hash(before)


@pytest.mark.parametrize("type", ["linkedin", "email"])
def test_where_the_orphan_cannot_be_stored_the_row_stays_too(live, type):
    account_id = live.add_linkedin() if type == "linkedin" else live.add_email()
    row = live.row(account_id)
    for provider in live.sandbox.resources:
        live.sandbox.behave(provider, "fail")
    live.sql("ALTER TABLE orphans RENAME TO orphans_away")
    assert_problem(live.delete(account_id), 500, "delete_failed")
    live.sql("ALTER TABLE orphans_away RENAME TO orphans")
    assert live.row(account_id) == row
    assert live.orphans() == []


def test_where_the_row_cannot_be_deleted_no_orphan_is_stored(live):
    account_id = live.add_email()
    live.sql("CREATE TABLE sends (account_id UUID REFERENCES accounts (id))")
    live.sql("INSERT INTO sends VALUES (?)", account_id)
    live.sandbox.behave("agentmail", "fail")
    assert_problem(live.delete(account_id), 500, "delete_failed")
    assert live.row(account_id)
    assert live.orphans() == []


def test_a_second_failure_of_the_same_resource_is_the_same_orphan_brought_up_to_date(live):
    account_id = live.add_linkedin(metadata={"contact": "c-1"})
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id, X_Request_ID="r-1")
    [first] = live.orphans()
    live.change(account_id, status="connected", metadata={"contact": "c-2"})
    live.sandbox.behave("unipile", "rate-limit")
    live.delete(account_id, X_Request_ID="r-2")
    [second] = live.orphans()
    assert (second["id"], second["created_at"]) == (first["id"], first["created_at"])
    assert (second["attempts"], second["request_id"]) == (2, "r-2")
    assert second["account"]["metadata"] == {"contact": "c-2"}
    assert "429" in second["reason"]
    assert second["next_attempt_at"] > clock.now() + timedelta(seconds=20)


def test_a_failure_after_a_reconnect_under_a_new_id_is_another_orphan(live):
    account_id = live.add_linkedin(provider_account_id="acc-old")
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id)
    live.change(account_id, status="connected", provider_account_id="acc-new")
    live.delete(account_id)
    left = [(o["account"]["provider_account_id"], o["attempts"]) for o in live.orphans()]
    assert left == [("acc-old", 1), ("acc-new", 1)]


BASE = {
    "id": str(uuid.uuid4()),
    "user_id": str(uuid.uuid4()),
    "provider_account_id": "a",
    "email_address": "b",
    "agentmail_inbox_id": "c",
    "instantly_account_id": "d",
    "metadata": {"k": 1, "l": {"m": 2}},
}


def _orphan_ids(fields, changes) -> list[str]:
    return [orphan_id("p", account(**{**BASE, **change}), fields) for change in changes]


def test_without_declared_ids_an_orphan_is_one_per_plugin_account_the_ids_and_metadata():
    same = [
        {},
        {"status": "x"},
        {"display_name": "y"},
        {"type": "t"},
        {"metadata": {"l": {"m": 2}, "k": 1}},
    ]
    assert len(set(_orphan_ids((), same))) == 1
    names = ["id", *list(BASE)[2:-1]]
    others = [{name: value} for name in names for value in (str(uuid.uuid4()), None, "", "b,c")]
    others += [{"email_address": "c", "agentmail_inbox_id": "b"}, {"metadata": {"k": 2}}]
    found = {*_orphan_ids((), [{}, *others]), orphan_id("q", account(**BASE), ())}
    assert len(found) == len(others) + 2


def test_with_them_it_is_one_per_plugin_account_and_their_values():
    fields = ("metadata.k", "email_address")
    same = [{}, {"agentmail_inbox_id": "x"}, {"metadata": {"k": "1"}}, {"provider_account_id": "y"}]
    assert len(set(_orphan_ids(fields, same))) == 1
    others = [{"metadata": {"k": 2}}, {"metadata": {}}, {"email_address": "x"}, {"id": "another"}]
    assert len(set(_orphan_ids(fields, [{}, *others]))) == len(others) + 1


@pytest.mark.parametrize(
    ("details", "wait", "parked"),
    [
        ({}, timedelta(0), False),
        ({"retry_after": 30.5}, timedelta(seconds=30.5), False),
        ({"retry_after": 7 * 86400.0}, timedelta(days=7), False),
        ({"retry_after": 7 * 86400.0 + 1}, timedelta(days=7), False),
        ({"retry_after": math.inf}, timedelta(days=7), False),
        ({"permanent": True}, timedelta(0), True),
    ],
)
def test_the_first_retry_is_due_at_once_or_when_the_provider_said(stack, details, wait, parked):
    record(stack, failed("unipile", account(), **details))
    [orphan] = stack.orphans()
    assert abs(orphan["next_attempt_at"] - orphan["created_at"] - wait) < MOMENT
    assert bool(orphan["parked_at"]) is parked


HIDDEN = "pk_live_0123456789abcdef"
NASTY = [
    ("a\0b\r\nc\x1b[31m\u2028d\x85e", "a b c [31m d e"),
    ("\ud800 lone \udfff surrogates", "lone surrogates"),
    ("x" * 2_000_000, "x" * 500),
    (f"the key {HIDDEN} and Bearer sesame", "the key *** and Bearer ***"),
    ("  ", "failed without a word"),
]


@pytest.mark.parametrize(("said", "stored"), NASTY, ids=range(len(NASTY)))
def test_whatever_a_plugin_says_becomes_one_clean_line(live, said, stored):
    def teardown_account(account):
        raise TeardownFailed(said, retry_after=math.nan)

    hook = hookimpl(teardown_account)
    live.service.plugins = Plugins([plugin_of("nasty", teardown_account=hook)])
    assert live.delete(live.add_email()).status_code == 200
    [orphan] = live.orphans()
    assert orphan["reason"] == stored


@pytest.mark.parametrize("mode", ["fail", "refuse", "unpaid", "rate-limit"])
def test_no_key_and_no_providers_body_gets_into_the_tables_or_the_log(capfd, live, mode):
    logs.configure("json")  # for the stream of the test itself, not for that of its set-up
    for provider in live.sandbox.resources:
        live.sandbox.behave(provider, mode)
    live.delete(live.add_linkedin(), Idempotency_Key="k")
    live.delete(live.add_email())
    tables = "".join(
        str(live.sql(f"SELECT * FROM {table}"))
        for table in ("accounts", "api_keys", "orphans", "idempotency_keys")
    )
    assert len(live.orphans()) == 3
    keys = [value for name, value in live.sandbox.environment.items() if name.endswith("KEY")]
    bodies = [
        "went wrong",
        "Invalid API key",
        "No active paid plan",
        "limit exceeded",
        "statusCode",
    ]
    seen = tables + capfd.readouterr().err
    assert "teardown.failed" in seen
    assert [word for word in (*keys, live.key, *bodies) if word in seen] == []


# Claiming


def test_an_orphan_is_claimed_once_until_its_lease_runs_out(stack):
    leave(stack)
    ledger = ledger_of(stack)
    [orphan] = _claim(ledger)
    assert _claim(ledger) == []
    let_pass(stack, timedelta(seconds=6))
    assert _claim(ledger) == []
    let_pass(stack, timedelta(seconds=7))
    [again] = _claim(ledger)
    assert (again.id, again.account) == (orphan.id, orphan.account)
    assert ledger.postpone(orphan, failed("unipile", orphan.account)) is False
    assert ledger.renew(orphan) is None
    [left] = stack.orphans()
    assert left["attempts"] == 1, "a worker that lost its lease has counted"
    assert clock.stamp(left["leased_until"]) == again.leased_until, "and has given it back"


def test_a_lease_that_is_renewed_begins_anew(stack):
    leave(stack)
    ledger = ledger_of(stack)
    [orphan] = _claim(ledger)
    renewed = ledger.renew(orphan)
    assert renewed.leased_until > orphan.leased_until
    assert ledger.renew(orphan) is None
    assert ledger.renew(renewed)


def test_a_claim_takes_the_longest_due_first_of_one_plugin_and_no_more_than_asked(stack):
    for name in ("oldest", "older", "old"):
        record(stack, failed("unipile", account(display_name=name)))
        let_pass(stack, timedelta(minutes=1))
    record(stack, failed("unipile", account(display_name="to come"), retry_after=60))
    record(stack, failed("other", account()))
    record(stack, failed("unipile", account(), permanent=True))
    ledger = ledger_of(stack)
    assert {o.account.display_name for o in _claim(ledger, most=2)} == {"oldest", "older"}
    assert [o.account.display_name for o in _claim(ledger)] == ["old"]
    assert _claim(ledger) == []


@only("postgresql")
def test_a_claim_waits_for_nobody_and_takes_what_others_are_not_claiming_just_now(stack):
    leave(stack, 6)
    ids = [orphan["id"] for orphan in stack.orphans()]
    with psycopg.connect(stack.database_url) as other:
        other.execute("SELECT 1 FROM orphans WHERE id = ANY(%s) FOR UPDATE", [ids[:3]])
        assert {orphan.id for orphan in _claim(ledger_of(stack))} == set(ids[3:])
    assert {orphan.id for orphan in _claim(ledger_of(stack))} == set(ids[:3])


YEAR, HOUR, WEEK = timedelta(days=365), timedelta(hours=1), timedelta(days=7)


@pytest.mark.parametrize(
    ("column", "ahead", "is_over"),
    [
        ("leased_until", HOUR, False),  # of a machine with a longer time-out
        ("leased_until", 2 * HOUR, True),
        ("leased_until", YEAR, True),
        ("next_attempt_at", WEEK, False),
        ("next_attempt_at", WEEK + HOUR, True),
        ("next_attempt_at", YEAR, True),
    ],
)
def test_a_time_further_ahead_than_anybody_can_have_written_counts_as_over(
    live, column, ahead, is_over
):
    leave(live)
    live.sql(f"UPDATE orphans SET {column} = clock(?)", ahead)
    [counted] = standing.by_plugin(live.database)
    assert counted.due == int(is_over or column == "leased_until")
    ledger = live.service.ledger
    assert ledger.count("unipile", ledger.now()) == counted.due
    assert live.retry() == ({"done": 1} if is_over else {})
    assert len(live.orphans()) == int(not is_over)


def test_what_was_parked_in_the_future_can_be_claimed_and_what_a_run_has_parked_cannot(stack):
    leave(stack, permanent=True)
    stack.sql("UPDATE orphans SET parked_at = clock(?)", YEAR)
    ledger = ledger_of(stack)
    began = ledger.now()
    [orphan] = ledger.claim("unipile", 9, began, parked=True)
    ledger.park(orphan, "again")
    assert ledger.claim("unipile", 9, began, parked=True) == []


def test_what_counts_as_over_takes_nothing_from_the_limit_of_a_claim(stack):
    leave(stack, 5)
    stack.sql("UPDATE orphans SET next_attempt_at = clock(?)", YEAR)
    leave(stack, 5)
    ledger, claimed = ledger_of(stack), []
    while several := _claim(ledger, most=3):
        assert len(several) <= 3
        claimed += several
    assert len({orphan.id for orphan in claimed}) == len(claimed) == 10


def test_parked_orphans_are_claimed_only_when_asked_for_and_then_at_once(stack):
    leave(stack, permanent=True, retry_after=3600)
    leave(stack, retry_after=3600)
    ledger = ledger_of(stack)
    assert _claim(ledger) == []
    [orphan] = _claim(ledger, parked=True)
    assert orphan.parked
    assert _claim(ledger, parked=True) == []


def test_a_finished_retry_does_not_take_away_what_failed_again_meanwhile(live):
    account_id = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    live.delete(account_id)
    ledger = ledger_of(live)
    [orphan] = _claim(ledger)
    live.change(account_id, status="connected")
    live.delete(account_id)
    ledger.forget(orphan)
    [left] = live.orphans()
    assert left["attempts"] == 2


# Superseded


def _mailbox(email=None, inbox=None, warmup=None, session=None):
    return {
        "email_address": email,
        "agentmail_inbox_id": inbox,
        "instantly_account_id": warmup,
        "provider_account_id": session,
    }


A, B = "Ada@Outreach.example", "bob@outreach.example"
SUPERSEDED = [
    # orphan's type, its ids, the live row's type, status, its ids, superseded?
    ("linkedin", _mailbox(session="s"), "linkedin", "connected", _mailbox(session="s"), True),
    ("linkedin", _mailbox(session="s"), "linkedin", "connecting", _mailbox(session="s"), True),
    ("linkedin", _mailbox(session="s"), "linkedin", None, _mailbox(session="s"), True),
    ("linkedin", _mailbox(session="s"), "whatsapp", "disconnected", _mailbox(session="s"), True),
    ("linkedin", _mailbox(session="s"), "linkedin", "disconnected", _mailbox(session="s"), False),
    ("linkedin", _mailbox(session="s"), "linkedin", "connected", _mailbox(session="S"), False),
    ("linkedin", _mailbox(session="s"), "linkedin", "connected", _mailbox(session="t"), False),
    ("linkedin", _mailbox(session="s"), "linkedin", "connected", _mailbox(session=None), False),
    ("linkedin", _mailbox(A, A, A, "s"), "linkedin", "connected", _mailbox(A, A, A, "t"), False),
    ("linkedin", _mailbox(A), "email", "connected", _mailbox(A), False),
    ("email", _mailbox(A), "email", "connected", _mailbox(A), True),
    ("email", _mailbox(A), "email", "connected", _mailbox(A.upper()), True),
    ("email", _mailbox(A.upper()), "email", "connected", _mailbox(A.lower()), True),
    ("email", _mailbox(inbox=A), "email", "connected", _mailbox(inbox=A.lower()), True),
    ("email", _mailbox(warmup=A), "email", "connected", _mailbox(warmup=A.upper()), True),
    ("email", _mailbox(A), "email", "connected", _mailbox(warmup=A.lower()), True),
    ("email", _mailbox(A, B), "email", "connected", _mailbox(B, B), True),
    ("email", _mailbox(A), "email", "disconnected", _mailbox(A), True),
    ("email", _mailbox(A), "email", None, _mailbox(A), True),
    ("email", _mailbox(A), "linkedin", "disconnected", _mailbox(A), False),
    ("email", _mailbox(A, A, A, "s"), "email", "connected", _mailbox(B, B, B, "s"), False),
    ("email", _mailbox(A), "email", "connected", _mailbox(B), False),
    ("email", _mailbox(), "email", "connected", _mailbox(), False),
    ("email", _mailbox("", "", "", ""), "email", "connected", _mailbox("", "", "", ""), False),
    ("whatsapp", _mailbox(session="s"), "whatsapp", "connected", _mailbox(session="s"), True),
    ("whatsapp", _mailbox(session="s"), "whatsapp", "connected", _mailbox(session="S"), False),
    ("whatsapp", _mailbox(A), "whatsapp", "connected", _mailbox(A.lower()), True),
    ("whatsapp", _mailbox(inbox=A), "whatsapp", "connected", _mailbox(inbox=A.lower()), True),
    ("whatsapp", _mailbox(warmup=A), "whatsapp", "connected", _mailbox(warmup=A.lower()), True),
    ("whatsapp", _mailbox(A, session="s"), "x", "connected", _mailbox(B, session="s"), True),
    ("whatsapp", _mailbox(A, session="s"), "x", "connected", _mailbox(A, session="t"), True),
    ("whatsapp", _mailbox(A, session="s"), "x", "connected", _mailbox(B, session="t"), False),
]


def test_a_plugin_that_declares_no_ids_is_compared_as_well_as_can_be(stack):
    """Each row of the table above, one after the other on one database."""
    ledger, wrong = ledger_of(stack), []
    plugin = plugin_of("silent", teardown_account=hookimpl(lambda account: None))
    for case in SUPERSEDED:
        type, ids, live_type, status, live_ids, expected = case
        record(stack, failed("unipile", account(type=type, **ids)))
        [orphan] = _claim(ledger)
        assert look(stack.database, plugin, orphan.account) is Verdict.FREE
        row = stack.add(type=live_type, status=status, user_id=str(uuid.uuid4()), **live_ids)
        found = look(stack.database, plugin, orphan.account)
        if found is not (Verdict.SUPERSEDED if expected else Verdict.FREE):
            wrong.append(case)
        stack.sql("DELETE FROM accounts WHERE id = ?", row)
        ledger.forget(orphan)
    assert wrong == []


# Listing


def test_pages_show_every_orphan_once_and_the_oldest_first(stack):
    many = 2 * standing.PAGE + 500
    for start in range(0, many, 300):  # 300 of one moment, so that pages end among them
        made = [failed("unipile", account()) for _ in range(min(300, many - start))]
        record(stack, *made, request_id=str(start))
        then = clock.stamp(NOON - timedelta(minutes=start))
        stack.sql("UPDATE orphans SET created_at = ? WHERE request_id = ?", then, str(start))
    pages = list(standing.pages(stack.database))
    assert [len(page) for page in pages] == [standing.PAGE, standing.PAGE, 500]
    seen = [orphan for page in pages for orphan in page]
    assert len({orphan["id"] for orphan in seen}) == many
    assert [o["created_at"] for o in seen] == sorted(o["created_at"] for o in seen)


@pytest.mark.parametrize(("age", "old"), [(89.99, 0), (90.01, 1), (400, 1)])
def test_what_is_parked_and_older_than_90_days_is_counted(stack, age, old):
    record(stack, failed("unipile", account(), permanent=True))
    record(stack, failed("unipile", account()))
    let_pass(stack, timedelta(days=age))
    assert standing.counts(stack.database) == {"all": 2, "parked": 1, "old": old}
