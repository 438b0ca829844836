"""Values that cannot be read or compared exactly: refused, before a provider is asked."""

from __future__ import annotations

import pytest
from support import assert_problem, only, plugin_of, use_plugins

from puffle_accounts import hookimpl
from puffle_accounts.account import ID_COLUMNS

pytestmark = only("sqlite")

INEXACT = {
    "bytes": "X'ab'",
    "bytes in a text": "CAST(X'6163632dff' AS TEXT)",
    "a surrogate": "CAST(X'eda080' AS TEXT)",
}
EXACT = {
    "text": ("'acc-1'", "acc-1"),
    "text as bytes": ("X'6163632d31'", "acc-1"),
    "a NUL": ("CAST(X'61630061' AS TEXT)", "ac\0a"),
    "what stands for bytes that were lost": ("char(65533)", "\ufffd"),
    "beyond Unicode's first plane": ("char(128512)", "\U0001f600"),
}


@pytest.fixture
def seen(live) -> list:
    """The accounts that were torn down, by a plugin that uses every id."""
    accounts = []

    @hookimpl
    def teardown_account(account):
        accounts.append(account)

    plugin = plugin_of("crm", RESOURCE_IDS=ID_COLUMNS, teardown_account=teardown_account)
    use_plugins(live, plugin)
    return accounts


def retype(live, type: str) -> None:
    live.sql("DROP INDEX puffle_accounts_provider")
    live.sql("ALTER TABLE accounts RENAME COLUMN provider_account_id TO former")
    live.sql(f"ALTER TABLE accounts ADD COLUMN provider_account_id {type}")
    live.sql("UPDATE accounts SET provider_account_id = former")


@pytest.mark.parametrize("value", INEXACT.values(), ids=INEXACT)
@pytest.mark.parametrize("column", [*ID_COLUMNS, "status"])
def test_an_id_that_cannot_be_read_is_refused_with_its_column_named(
    live, seen, events, column, value
):
    account = live.add_email()
    live.sql(f"UPDATE accounts SET {column} = {value}")
    for _ in range(2):
        assert_problem(live.delete(account, Idempotency_Key="k"), 500, "delete_failed")
    assert (seen, live.orphans()) == ([], [])
    assert live.sql("SELECT count(*) FROM accounts") == [(1,)]
    said = {fields["outcome"] for event, fields in events() if event == "account.kept"}
    assert said == {f"its {column} cannot be read exactly: correct it"}


def test_a_number_is_exact_unless_it_has_lost_digits(live, seen):
    lost, whole = (live.add_linkedin(provider_account_id=f"{n}") for n in (2**70, 2**62))
    retype(live, "NUMERIC")
    assert_problem(live.delete(lost), 500, "delete_failed")
    assert live.delete(whole).status_code == 200
    assert [each.provider_account_id for each in seen] == [str(2**62)]


@pytest.mark.parametrize(("value", "meant"), EXACT.values(), ids=EXACT)
def test_an_id_that_can_be_read_is_torn_down_and_compared(live, seen, value, meant):
    account = live.add_linkedin()
    live.sql(f"UPDATE accounts SET provider_account_id = {value}")
    assert live.delete(account).status_code == 200
    assert [each.provider_account_id for each in seen] == [meant]
    assert live.sql("SELECT status FROM accounts") == [("disconnected",)]


def test_a_column_that_folds_does_not_take_one_id_for_another(live, seen):
    """A reconnect under an id that differs in case alone is torn down too."""
    account = live.add_linkedin(provider_account_id="AbC")
    retype(live, "TEXT COLLATE NOCASE")

    @hookimpl
    def teardown_account(account):
        seen.append(account)
        if len(seen) == 1:
            live.sql("UPDATE accounts SET provider_account_id = 'aBc'")

    use_plugins(live, plugin_of("crm", RESOURCE_IDS=ID_COLUMNS, teardown_account=teardown_account))
    assert live.delete(account).status_code == 200
    assert [each.provider_account_id for each in seen] == ["AbC", "aBc"]
