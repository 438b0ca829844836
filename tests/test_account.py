"""The snapshot that plugins get: frozen all the way down, and JSON and back without loss."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puffle_accounts import Account, live
from puffle_accounts.account import METADATA_DEPTH
from puffle_accounts.testing import account

FIELDS = [
    *("id", "user_id", "type", "status", "display_name"),
    *("provider_account_id", "email_address", "agentmail_inbox_id", "instantly_account_id"),
    *("metadata", "created_at", "updated_at"),
]

ids = st.uuids().map(str)
texts = st.none() | st.text()
moments = st.none() | st.datetimes(timezones=st.just(timezone.utc))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
accounts = st.builds(
    Account,
    id=ids,
    user_id=ids,
    type=st.text(),
    **dict.fromkeys(FIELDS[3:9], texts),
    metadata=st.dictionaries(st.text(), values),
    created_at=moments,
    updated_at=moments,
)


def kinds(value: object) -> object:
    """Return a value's type, and those of all it holds."""
    if isinstance(value, tuple):
        return [kinds(item) for item in value]
    if hasattr(value, "items"):
        return type(value), {key: kinds(item) for key, item in value.items()}
    return type(value)


@settings(deadline=None, database=None)
@given(accounts)
def test_to_json_and_from_json_are_each_others_inverse(original):
    text = original.to_json()
    again = Account.from_json(text)
    assert again == original
    assert [kinds(getattr(again, name)) for name in FIELDS] == [
        kinds(getattr(original, name)) for name in FIELDS
    ]
    assert again.to_json() == text


def test_the_json_is_one_object_with_the_published_names_and_iso_times():
    moment = datetime(2026, 1, 31, 8, 30, tzinfo=timezone.utc)
    values = json.loads(account(created_at=moment, metadata={"a": [{}]}).to_json())
    assert sorted(values) == sorted(FIELDS)
    assert values["created_at"] == "2026-01-31T08:30:00+00:00"
    assert values["metadata"] == {"a": [{}]}


def test_a_snapshot_from_another_release_is_read_as_far_as_both_know():
    short = account(metadata={})
    values = json.loads(short.to_json())
    del values["metadata"]
    assert Account.from_json(json.dumps(values | {"of_the_future": 1})) == short


def test_it_has_exactly_the_published_fields():
    assert [field.name for field in fields(Account)] == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_can_be_set_or_deleted(name):
    snapshot = account()
    with pytest.raises(FrozenInstanceError):
        setattr(snapshot, name, "other")
    with pytest.raises(FrozenInstanceError):
        delattr(snapshot, name)


def test_no_field_can_be_added():
    with pytest.raises((AttributeError, TypeError)):
        account().note = "mine"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(a=1),
        lambda m: m.__setitem__("a", 1),
        lambda m: m["object"].__setitem__("b", 1),
        lambda m: m["list"].append(1),
        lambda m: m["list"].__setitem__(0, 1),
        lambda m: m["list"][0].__setitem__("c", 1),
        lambda m: m["list"][1].append(1),
    ],
)
def test_metadata_is_immutable_at_every_depth(change):
    snapshot = account(metadata={"object": {"b": 0}, "list": [{"c": 0}, [0]]})
    before = snapshot.to_json()
    with pytest.raises((AttributeError, TypeError)):
        change(snapshot.metadata)
    assert snapshot.to_json() == before


def test_what_metadata_was_made_of_may_change_without_it():
    source = {"list": [{"c": 0}]}
    snapshot = account(metadata=source)
    source["list"][0]["c"] = 1
    source["new"] = 1
    assert json.loads(snapshot.to_json())["metadata"] == {"list": [{"c": 0}]}


def nested(depth: int) -> dict:
    """Return metadata with so many levels, every other one a list."""
    value = 1
    for level in range(depth - 1):
        value = {"a": value} if level % 2 else [value]
    return {"a": value}


def test_metadata_may_be_nested_to_its_depth_and_comes_back_the_same():
    original = account(metadata=nested(METADATA_DEPTH))
    assert Account.from_json(original.to_json()) == original


def test_metadata_that_is_nested_deeper_is_refused_in_python_and_in_json():
    too_deep = nested(METADATA_DEPTH + 1)
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        account(metadata=too_deep)
    values = json.loads(account(metadata={}).to_json())
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        Account.from_json(json.dumps(values | {"metadata": too_deep}))
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        Account.from_json('{"metadata": ' + "[" * 100_000 + "]" * 100_000 + "}")


def test_equal_snapshots_hash_alike_and_a_changed_copy_differs():
    snapshot = account(metadata={"a": [1]})
    same = replace(snapshot)
    assert {snapshot, same} == {snapshot}
    assert replace(snapshot, metadata={"a": [2]}) != snapshot


def test_ids_of_a_row_are_text_and_its_times_are_in_utc(stack):
    account_id = stack.add_email(metadata={"crm": {"ids": [1, "2"]}})
    stack.sql("UPDATE accounts SET created_at = '2026-03-01 10:00:00+02:00'")
    with stack.database.reading():
        snapshot = live.read(stack.database, (), account_id, stack.user_id).account
    assert (type(snapshot.id), snapshot.id) == (str, account_id)
    assert (type(snapshot.user_id), snapshot.user_id) == (str, stack.user_id)
    assert snapshot.created_at == datetime(2026, 3, 1, 8, tzinfo=timezone.utc)
    assert (snapshot.created_at.tzinfo, snapshot.updated_at.tzinfo) == (timezone.utc,) * 2
    assert snapshot.metadata["crm"]["ids"] == (1, "2")
    assert Account.from_json(snapshot.to_json()) == snapshot


def test_a_row_without_metadata_or_times_has_an_empty_object_and_none(stack):
    account_id = stack.add(metadata=None, created_at=None, updated_at=None, status=None)
    with stack.database.reading():
        snapshot = live.read(stack.database, (), account_id, stack.user_id).account
    assert dict(snapshot.metadata) == {}
    assert (snapshot.created_at, snapshot.updated_at, snapshot.status) == (None, None, None)
