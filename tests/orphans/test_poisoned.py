"""Contract §4: whatever an orphan holds, it is parked or worked on, and holds up no other."""

from __future__ import annotations

import json
import math
import threading
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orphanage import called_for, leave
from peewee import DataError, OperationalError, PeeweeException
from support import Stack, only, plugin_of

from puffle_accounts import hookimpl
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.orphans import attempt, standing
from puffle_accounts.orphans.attempt import UNREADABLE, UNUSABLE, Retrier
from puffle_accounts.orphans.retry import Pass, Scope
from puffle_accounts.testing import account

PROVIDERS = ("unipile", "instantly", "agentmail")
DEEP = "[" * 3000 + "]" * 3000
SNAPSHOT = json.loads(account(type="linkedin", provider_account_id="acc", metadata={}).to_json())

INSERT = """
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,
                     created_at, next_attempt_at, leased_until, parked_at, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
LONG_AGO = "2026-01-01 00:00:00.000000+00:00"


def put(stack: Stack, snapshot: str, **columns) -> object:
    """Write an orphan as somebody else might; return its id, `None` where no table takes it."""
    row = {
        **dict.fromkeys(standing.COLUMNS),
        **{"id": str(uuid.uuid4()), "plugin": "unipile", "account": snapshot, "reason": "put"},
        **dict.fromkeys(("account_id", "user_id"), SNAPSHOT["id"]),
        **{"attempts": 1, "created_at": LONG_AGO, "next_attempt_at": LONG_AGO},
    } | columns
    try:
        stack.sql(INSERT, *row.values())
    except (PeeweeException, UnicodeEncodeError, OverflowError):
        return None
    return row["id"]


def retry(live: Stack) -> dict[str, int]:
    retrier = Retrier(live.service.ledger, live.service.plugins, live.service.timeout)
    scope = Scope(live.service.plugins.active, parked=True)
    return dict(Pass(retrier, scope, threading.Event()).work())


def changed(**fields: object) -> str:
    return json.dumps(SNAPSHOT | fields)


PARKED = {
    "no object": ('["a"]', UNREADABLE),
    "a text": ('"id"', UNREADABLE),
    "null": ("null", UNREADABLE),
    "empty": ("{}", UNREADABLE),
    "of a text": (changed(type=["email"]), UNREADABLE),
    "10^30": (changed(provider_account_id=10**30), UNREADABLE),
    "a flag": (changed(email_address=False), UNREADABLE),
    "no user": (changed(user_id=None), UNREADABLE),
    "a number for a time": (changed(created_at=5), UNREADABLE),
    "no time": (changed(created_at="yesterday"), UNREADABLE),
    "a time before all": (changed(created_at="0001-01-01T00:00:00+10:00"), UNREADABLE),
    "metadata that is none": (changed(metadata=None), UNREADABLE),
    "metadata in a list": (changed(metadata=[]), UNREADABLE),
    "deep": (DEEP, UNREADABLE),
    "deep metadata": (changed().replace("{}", f'{{"a": {DEEP}}}'), UNREADABLE),
    "NUL": (changed(provider_account_id="a\0b"), UNUSABLE),
    "half a character": (changed(provider_account_id="a\ud800"), UNUSABLE),
}


def test_what_cannot_be_worked_on_is_parked_with_a_reason_and_the_others_are_done(live):
    expected = {put(live, text): reason for text, reason in PARKED.values()}
    for provider in PROVIDERS:
        leave(live, 3, provider)
    assert live.retry() == {"parked": len(PARKED), "done": 9}
    assert {orphan["id"]: orphan["reason"] for orphan in live.orphans()} == expected
    assert all(o["parked_at"] and not o["leased_until"] for o in live.orphans())
    assert len(called_for(live)) == 9


def test_what_another_version_has_added_or_left_out_is_no_reason_not_to_work_on_it(live):
    known = {name: SNAPSHOT[name] for name in ("id", "user_id", "type", "provider_account_id")}
    put(live, changed(of_the_future={"a": [None]}, metadata={"n": 10**30, "nul": "\0"}))
    put(live, json.dumps(known))
    live.sandbox.add("unipile", "acc")
    assert live.retry() == {"done": 2}


@pytest.mark.parametrize(
    ("error", "is_its_own"), [(ValueError, True), (DataError, True), (OperationalError, False)]
)
def test_what_nobody_expected_of_one_parks_it_and_a_database_that_fails_parks_none(
    live, monkeypatch, error, is_its_own
):
    [bad] = leave(live)
    leave(live, 3)
    look = attempt.look

    def fails_for_one(database, plugin, account):
        if account == bad:
            raise error("it is about\nthis one")
        return look(database, plugin, account)

    monkeypatch.setattr(attempt, "look", fails_for_one)
    if not is_its_own:
        with pytest.raises(error):
            live.retry()
        assert not any(orphan["parked_at"] for orphan in live.orphans())
        return
    assert live.retry() == {"done": 3, "parked": 1}
    [left] = live.orphans()
    assert left["reason"] == f"it cannot be worked on: {error.__name__}: it is about this one"


@pytest.mark.parametrize("attempts", [2**31 - 1, -(2**31), -1])
def test_a_count_that_is_none_is_parked_when_it_fails_and_fails_no_delete(live, attempts):
    account_id = live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    assert live.delete(account_id).status_code == 200
    live.sql("UPDATE orphans SET attempts = ?", attempts)
    assert live.retry() == {"parked": 1}
    live.sql("UPDATE orphans SET attempts = ?", attempts)
    live.change(account_id, status="connected")
    assert live.delete(account_id).status_code == 200
    [orphan] = live.orphans()
    assert orphan["attempts"] != attempts


@only("sqlite")
def test_a_count_in_words_begins_anew(live):
    put(live, changed(), attempts="many")
    live.sandbox.behave("unipile", "fail")
    assert live.retry() == {"failed": 1}
    assert [orphan["attempts"] for orphan in live.orphans()] == [1]


def test_a_request_id_that_is_none_is_not_sent_to_the_provider(live):
    seen = []
    hook = hookimpl(lambda account: seen.append(attempt.context.request_id.get()))
    live.service.plugins = Plugins([plugin_of("crm", teardown_account=hook)])
    for request_id in ("a\r\nX-Evil: 1", "x" * 129, "", "r-1"):
        put(live, changed(), plugin="crm", request_id=request_id)
    assert live.retry() == {"done": 4}
    assert sorted(seen, key=str) == [None, None, None, "r-1"]


# Anything

texts = st.text() | st.sampled_from(["\0", "\ud800", "acc", "a\nb\x1b[31m", "x" * 3000])
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -1, math.nan, math.inf])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
changes = st.dictionaries(st.sampled_from([*SNAPSHOT, "of_the_future"]), anything, max_size=4)
snapshots = (
    changes.map(lambda fields: changed(**fields))
    | st.lists(st.sampled_from([*SNAPSHOT])).map(
        lambda left: json.dumps({k: v for k, v in SNAPSHOT.items() if k in left})
    )
    | anything.map(json.dumps)
    | texts
    | st.just(DEEP)
)
wrong_times = st.sampled_from(["infinity", "-infinity", "9999-12-31 00:00:00+00", "no time", ""])
rows = st.fixed_dictionaries(
    {"snapshot": snapshots},
    optional={
        "id": texts | st.binary(),
        "plugin": st.sampled_from(PROVIDERS) | texts,
        "account_id": texts | st.binary(),
        "user_id": texts | st.integers(),
        "reason": texts | st.binary(),
        "request_id": texts | st.binary(),
        "attempts": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 12) | texts,
        **dict.fromkeys(("created_at", "next_attempt_at"), wrong_times),
        **dict.fromkeys(("leased_until", "parked_at"), st.none() | wrong_times),
    },
)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(written=st.lists(rows, min_size=1, max_size=15), mode=st.sampled_from(["ok", "fail"]))
def test_whatever_an_orphan_holds_harms_itself_alone(live, written, mode):
    def command(*arguments: str, exit_codes: tuple[int, ...] = (0,)) -> str:
        ended = live.app.test_cli_runner().invoke(args=["orphans", *arguments])
        assert ended.exit_code in exit_codes, (ended.output, ended.exception)
        return ended.stdout

    live.sql("DELETE FROM orphans")
    for provider in PROVIDERS:
        live.sandbox.behave(provider, "ok")
    there = [row for row in written if put(live, **row) is not None]
    good = {each.id for provider in PROVIDERS for each in leave(live, 1, provider)}
    listed = json.loads(command("list", "--json"), parse_constant=pytest.fail)
    assert len(listed) == len(there) + len(good)
    assert len(command("list").splitlines()) == len(listed) + 2
    counted = json.loads(command("count", "--json"), parse_constant=pytest.fail)
    assert sum(c["due"] + c["waiting"] + c["parked"] for c in counted) == len(listed)
    command("count")
    command("find", "--json", exit_codes=(0, 1))
    command("adopt", "agentmail", uuid.uuid4().hex, "--reason", "x")

    for provider in PROVIDERS:
        live.sandbox.behave(provider, mode)
    began = live.service.ledger.now()
    retry(live)
    left = live.orphans()
    tried = [orphan["attempts"] for orphan in left if orphan["account_id"] in good]
    assert tried == ([] if mode == "ok" else [2, 2, 2])
    ours = [orphan for orphan in left if orphan["plugin"] in PROVIDERS]
    assert [orphan["leased_until"] for orphan in ours if orphan["leased_until"] is not None] == []
    assert all(o["parked_at"] is not None or o["next_attempt_at"] > began for o in ours)
    retry(live)
    for orphan in left[:2]:
        if len(str(orphan["id"])) == 36:
            assert "dropped" in command("drop", orphan["id"], "--reason", "x")
