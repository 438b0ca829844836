"""Contract §2 to §4: what a plugin says it holds is what is compared, everywhere."""

from __future__ import annotations

import logging
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from orphanage import failed, record
from support import only, plugin_of, use_plugins, wait_until, write_distribution

from puffle_accounts import TeardownFailed, hookimpl, resources
from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.hooks import loading
from puffle_accounts.orphans.superseded import UNDECIDED, Verdict, look
from puffle_accounts.testing import account, call

KEY = "crm_contact_id"
CRM = """
import os, time
from puffle_accounts import TeardownFailed, hookimpl

ACCOUNT_TYPES = {"email"}
RESOURCE_IDS = ("metadata.crm_contact_id",)

@hookimpl
def teardown_account(account):
    with open(os.environ["CRM_CALLS"], "a") as calls:
        calls.write(f"{account.metadata['crm_contact_id']}\\n")
    while os.path.exists(os.environ["CRM_CALLS"] + ".held-up"):
        time.sleep(0.02)
    if os.path.exists(os.environ["CRM_CALLS"] + ".down"):
        raise TeardownFailed("the CRM is down")
    return "contact deleted"
"""


def spelled(value: object) -> str:
    """Return what names a case; pytest spells what is not ASCII one way or another."""
    return re.sub(r"\W", "-", ascii(value))[:20]


class Crm:
    """A third party's plugin, really installed, whose provider can be down."""

    def __init__(self, folder) -> None:
        write_distribution(folder, "puffle-crm", CRM)
        self._calls = folder / "calls"
        self._down = folder / "calls.down"
        self.held_up = folder / "calls.held-up"
        self.environ = {"PYTHONPATH": str(folder), "CRM_CALLS": str(self._calls)}

    def down(self, is_down: bool = True) -> None:
        self._down.touch() if is_down else self._down.unlink()
        self._calls.write_text("")

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def crm(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Crm(folder)


def _add(stack, contact, **columns) -> str:
    return stack.add(type="email", metadata={KEY: contact}, **columns)


# The four cases that were seen, under gunicorn and with the real retrier


def test_a_live_account_with_the_same_address_and_another_id_spares_nothing(stack, gunicorn, crm):
    gunicorn(**crm.environ, PUFFLE_DISABLED_PLUGINS="instantly,agentmail,unipile")
    crm.down()
    old = _add(stack, 111, email_address="a@b.example")
    assert stack.delete(old).headers["Teardown-Status"] == "partial"
    _add(stack, 222, email_address="a@b.example")
    crm.down(False)
    assert stack.command("orphans", "retry", **crm.environ).stdout.startswith("1 done")
    assert (crm.calls, stack.orphans()) == (["111"], [])


def test_a_live_account_with_another_address_and_the_same_id_is_not_destroyed(stack, gunicorn, crm):
    gunicorn(**crm.environ, PUFFLE_DISABLED_PLUGINS="instantly,agentmail,unipile")
    crm.down()
    stack.delete(_add(stack, 333, email_address="a@b.example"))
    live = _add(stack, "333", email_address="c@d.example")
    crm.down(False)
    assert "1 superseded" in stack.command("orphans", "retry", **crm.environ).stdout
    assert (crm.calls, stack.orphans()) == ([], [])
    assert stack.row(live)


def test_two_failures_in_turn_with_two_ids_are_both_made_good(stack, gunicorn, crm):
    gunicorn(**crm.environ, PUFFLE_DISABLED_PLUGINS="instantly,agentmail,unipile")
    crm.down()
    account_id = _add(stack, 1)
    stack.delete(account_id)
    stack.delete(_add(stack, 2, id=account_id))
    assert len(stack.orphans()) == 2
    crm.down(False)
    assert stack.command("orphans", "retry", **crm.environ).stdout.startswith("2 done")
    assert (sorted(crm.calls), stack.orphans()) == (["1", "2"], [])


def test_an_id_that_changes_meanwhile_is_nobodys_no_more(stack, gunicorn, crm):
    gunicorn(
        **crm.environ,
        PUFFLE_DISABLED_PLUGINS="instantly,agentmail,unipile",
        PUFFLE_TEARDOWN_TIMEOUT="20",
    )
    account_id = _add(stack, "old")
    crm.held_up.touch()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(stack.delete, account_id)
        wait_until(lambda: crm.calls == ["old"])
        stack.change(account_id, metadata={KEY: "new"})
        crm.held_up.unlink()
        assert answer.result().headers["Teardown-Status"] == "complete"
    assert (crm.calls, stack.row(account_id)) == (["old", "new"], None)


def test_failures_with_two_ids_in_turn_are_two_orphans(live):
    def fail(account):
        raise TeardownFailed("left")

    plugin = plugin_of("crm", RESOURCE_IDS=(f"metadata.{KEY}",), teardown_account=hookimpl(fail))
    use_plugins(live, plugin)
    account_id = live.add(type="linkedin", metadata={KEY: 1})
    live.delete(account_id)
    live.change(account_id, status="connected", metadata={KEY: 2})
    live.delete(account_id)
    assert {orphan["account"]["metadata"][KEY] for orphan in live.orphans()} == {1, 2}


@pytest.mark.parametrize("spared", [False, True])
def test_what_a_plugin_does_not_declare_makes_no_second_orphan(live, spared):
    def fail(account):
        raise TeardownFailed("left")

    plugin = plugin_of("crm", RESOURCE_IDS=(f"metadata.{KEY}",), teardown_account=hookimpl(fail))
    use_plugins(live, plugin)
    if spared:
        live.add(type="email", metadata={KEY: 1})
    account_id = live.add(type="linkedin", metadata={KEY: 1}, email_address="old@a.example")
    live.delete(account_id)
    live.change(account_id, status="connected", email_address="new@a.example")
    live.delete(account_id)
    [orphan] = live.orphans()
    assert orphan["account"]["email_address"] == "new@a.example"
    assert orphan["attempts"] == (0 if spared else 2)


def test_what_is_left_of_a_resource_that_the_row_still_names_is_no_orphan_if_made_good(live):
    """Whatever else of the account has changed meanwhile."""
    seen = []

    @hookimpl
    def teardown_account(account):
        seen.append(account.email_address)
        if len(seen) == 1:
            live.change(account_id, email_address="new@a.example")
            raise TeardownFailed("not now")
        return "done"

    fields = (f"metadata.{KEY}",)
    use_plugins(live, plugin_of("crm", RESOURCE_IDS=fields, teardown_account=teardown_account))
    account_id = live.add(type="email", metadata={KEY: 1}, email_address="old@a.example")
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert (seen, live.orphans()) == (["old@a.example", "new@a.example"], [])


def test_so_they_are_for_a_plugin_that_declares_nothing(live):
    def fail(account):
        raise TeardownFailed("left")

    use_plugins(live, plugin_of("crm", teardown_account=hookimpl(fail)))
    account_id = live.add(type="linkedin", metadata={"any": 1})
    live.delete(account_id)
    live.change(account_id, status="connected", metadata={"any": 2})
    live.delete(account_id)
    assert {orphan["account"]["metadata"]["any"] for orphan in live.orphans()} == {1, 2}


def test_an_id_that_changes_while_its_provider_is_awaited_is_torn_down_too(live):
    seen = []

    @hookimpl
    def teardown_account(account):
        seen.append(account.metadata[KEY])
        if len(seen) == 1:
            live.change(account_id, metadata={KEY: "new"})

    use_plugins(
        live, plugin_of("crm", RESOURCE_IDS=(f"metadata.{KEY}",), teardown_account=teardown_account)
    )
    account_id = live.add(type="email", metadata={KEY: "old"})
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert (seen, live.row(account_id)) == (["old", "new"], None)


def test_another_key_may_change_meanwhile_without_another_round(live):
    seen = []

    @hookimpl
    def teardown_account(account):
        seen.append(account)
        live.change(account_id, metadata={KEY: "same", "note": "new"})

    use_plugins(
        live, plugin_of("crm", RESOURCE_IDS=(f"metadata.{KEY}",), teardown_account=teardown_account)
    )
    account_id = live.add(type="email", metadata={KEY: "same", "note": "old"})
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert (len(seen), live.row(account_id)) == (1, None)


def test_an_old_inbox_is_not_spared_because_a_new_one_has_its_address(live):
    """The fifth case: AgentMail's inbox is compared with inboxes, not with addresses."""
    live.sandbox.behave("agentmail", "fail")
    live.delete(live.add(type="email", email_address="a@b.example", agentmail_inbox_id="inbox-1"))
    live.sandbox.behave("agentmail", "ok")
    live.add(type="email", email_address="a@b.example", agentmail_inbox_id="inbox-2")
    retried = live.command("orphans", "retry")
    assert "1 done" in retried.stdout
    assert live.sandbox.resources["agentmail"] == {"inbox-2"}


# What two accounts share


def _shared(live, status="connected") -> tuple[str, str]:
    ids = {"provider_account_id": "acc-shared", "status": status}
    return live.add_linkedin(**ids), live.add_linkedin(**ids, user_id=str(uuid.uuid4()))


def test_what_another_account_uses_is_not_taken_from_it(live, events):
    first, second = _shared(live)
    answer = live.delete(first)
    assert (answer.status_code, answer.headers["Teardown-Status"]) == (200, "complete")
    assert live.sandbox.calls == []
    assert live.row(first)["status"] == "disconnected"
    [orphan] = live.orphans()
    assert (orphan["reason"], orphan["attempts"]) == ("in use by another account", 0)
    wait = orphan["next_attempt_at"] - orphan["created_at"]
    assert wait.total_seconds() == pytest.approx(60, abs=1)
    assert orphan["parked_at"] is None
    [spared] = [fields for event, fields in events() if event == "teardown.spared"]
    assert (spared["plugin"], spared["account"]) == ("unipile", first)
    live.make_due()
    assert "1 superseded" in live.command("orphans", "retry").stdout
    assert live.sandbox.calls == []
    live.sql("UPDATE api_keys SET user_id = ?", live.row(second)["user_id"])
    assert live.delete(second).headers["Teardown-Status"] == "complete"
    assert live.sandbox.resources["unipile"] == set()


def test_it_is_torn_down_once_the_other_does_not_use_it_any_more(live):
    first, second = _shared(live)
    live.delete(first)
    live.change(second, status="disconnected")
    live.make_due()
    assert "1 done" in live.command("orphans", "retry").stdout
    assert live.sandbox.resources["unipile"] == set()


@pytest.mark.parametrize(
    "other",
    [
        {"type": "linkedin", "provider_account_id": "acc-1", "status": "disconnected"},
        {"type": "linkedin", "provider_account_id": "ACC-1"},
        {"type": "linkedin", "provider_account_id": "acc-2"},
        {"type": "email", "provider_account_id": "acc-1"},
    ],
    ids=["disconnected", "another id", "a third id", "a type that the plugin does not take"],
)
def test_who_does_not_use_it_does_not_keep_it(live, other):
    live.add(**other)
    account_id = live.add_linkedin(provider_account_id="acc-1")
    live.delete(account_id)
    assert [call.method for call in live.sandbox.calls] == ["DELETE"]
    assert live.orphans() == []


def test_a_linkedin_account_that_names_an_inboxs_address_does_not_use_the_inbox(live):
    live.add_linkedin(email_address="a@b.example")
    account_id = live.add_email(
        email_address="a@b.example",
        agentmail_inbox_id="a@b.example",
        instantly_account_id="a@b.example",
    )
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert len(live.sandbox.calls) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [("A@b.Example", "a@B.example"), ("Émile@b.example", "émile@b.example")],
    ids=spelled,
)
def test_each_value_is_compared_with_each_and_an_address_without_regard_to_case(live, one, other):
    live.add(type="email", email_address=one)
    account_id = live.add(type=" Email ", email_address="x@y.example", instantly_account_id=other)
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert [orphan["plugin"] for orphan in live.orphans()] == ["instantly"]
    assert live.sandbox.calls == []


def test_two_deletes_of_what_two_accounts_share_end_with_it_torn_down_once(live):
    """Both are under way at once: a provider of theirs alone holds them up."""
    barrier, revoked = threading.Barrier(2, timeout=20), []

    @hookimpl
    def slow(account):
        barrier.wait()

    @hookimpl
    def revoke(account):
        revoked.append(account.id)
        return "revoked"

    ids = {"RESOURCE_IDS": ("provider_account_id",)}
    use_plugins(
        live,
        plugin_of("slow", teardown_account=slow),
        plugin_of("session", **ids, teardown_account=revoke),
    )
    first, second = (live.add_linkedin(provider_account_id="acc-1") for _ in range(2))
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(live.delete, (first, second)))
    assert [answer.headers["Teardown-Status"] for answer in answers] == ["complete"] * 2
    assert (revoked, len(live.orphans())) == ([], 2)
    live.make_due()
    results = live.retry()
    assert (results["done"], live.orphans()) == (2, [])
    assert revoked, "torn down, the second time as gone already"


def test_an_account_that_starts_to_share_meanwhile_is_looked_at_again(live):
    """The row changes to an id that another account uses: that is what is then not taken."""
    seen = []

    @hookimpl
    def revoke(account):
        seen.append(account.provider_account_id)
        live.change(account_id, provider_account_id="acc-other")

    use_plugins(
        live,
        plugin_of("session", RESOURCE_IDS=("provider_account_id",), teardown_account=revoke),
    )
    live.add_linkedin(provider_account_id="acc-other")
    account_id = live.add_linkedin(provider_account_id="acc-1")
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert seen == ["acc-1"]
    assert [orphan["reason"] for orphan in live.orphans()] == ["in use by another account"]


# Types


@pytest.mark.parametrize("type", ["LinkedIn", "linkedin    ", " LINKEDIN\t"])
def test_a_type_is_compared_without_regard_to_case_and_white_space(live, type):
    account_id = live.add(type=type, provider_account_id="acc-1")
    assert live.delete(account_id).headers["Teardown-Status"] == "complete"
    assert live.row(account_id)["status"] == "disconnected"
    assert live.sandbox.resources["unipile"] == set()
    assert live.delete(account_id).status_code == 200
    assert (live.row(account_id), len(live.sandbox.calls)) == (None, 1)


def test_a_type_that_no_plugin_takes_is_not_forgotten_if_it_has_an_id_of_a_plugin(live):
    account_id = live.add(type="gmail", agentmail_inbox_id="inbox-1", metadata={"a": 1})
    assert live.delete(account_id).headers["Teardown-Status"] == "partial"
    assert (live.row(account_id), live.sandbox.calls) == (None, [])
    [orphan] = live.orphans()
    assert (orphan["plugin"], orphan["parked_at"] is None) == ("agentmail", False)
    assert "gmail" in orphan["reason"]
    assert live.command("orphans", "retry", "--parked").returncode == 1
    assert len(live.orphans()) == 1, "not done by being looked at"


# A plugin that declares nothing


def test_what_nobody_can_tell_is_parked_and_says_what_to_do(live):
    called = []
    use_plugins(live, plugin_of("crm", teardown_account=hookimpl(lambda account: called.append(1))))
    record(live, failed("crm", account(email_address="a@b.example", metadata={"n": 1})))
    live.add(type="email", email_address="a@b.example", metadata={"n": 2})
    assert live.retry() == {"parked": 1}
    [orphan] = live.orphans()
    assert (called, orphan["reason"]) == ([], UNDECIDED)
    assert "RESOURCE_IDS" in orphan["reason"]


# The declaration

DECLARED = [
    ("email_address",),
    ["metadata.a.b"],
    {"metadata.k\"'?%s"},
    ("metadata.ü", "email_address"),
]
UNUSABLE = [
    (),
    "email_address",
    ("id",),
    ("display_name",),
    ("metadata",),
    ("metadata.",),
    ("email_address", 1),
    (None,),
    1,
    b"email_address",
]


@pytest.mark.parametrize("fields", DECLARED, ids=spelled)
def test_a_field_is_one_of_the_four_ids_or_a_key_of_metadata(fields):
    assert set(resources.declared(plugin_module(RESOURCE_IDS=fields))) == set(fields)


@pytest.mark.parametrize("fields", UNUSABLE, ids=str)
def test_a_field_that_cannot_be_makes_a_broken_plugin(fields):
    with pytest.raises(BrokenPlugin, match="RESOURCE_IDS"):
        call(plugin_module(RESOURCE_IDS=fields), account())


def plugin_module(**attributes):
    return SimpleNamespace(teardown_account=hookimpl(lambda account: "done"), **attributes)


VALUES = [
    (1, "1"),
    (-5, "-5"),
    (10**30, str(10**30)),
    ("x", "x"),
    (" ", " "),
    ("A@B.example", "a@b.example"),
    ("Abc", "Abc"),
    ("x" * 10_000, "x" * 10_000),
    ('o\'r "q" % ? \n', 'o\'r "q" % ? \n'),
    ("nul\0", "nul\0"),
    ("\ud800", "\ud800"),
    ("", None),
    (True, None),
    (None, None),
    (1.5, None),
    (2.0, None),
    ([1], None),
    ({"a": 1}, None),
]


@pytest.mark.parametrize(("value", "compared"), VALUES, ids=spelled)
def test_a_value_is_a_text_or_a_whole_number(value, compared):
    snapshot = account(metadata={"k": value})
    assert resources.named(snapshot, ("metadata.k",)).get("metadata.k") == compared
    module = plugin_module(RESOURCE_IDS=("metadata.k",))
    assert call(module, snapshot).said == (None if compared is None else "done")


@pytest.mark.parametrize("key", ["k", "a.b", "k\"'", "ü", "?", "%s", "$", "a b", "\\"], ids=spelled)
def test_a_value_of_any_key_is_found_in_the_tables(stack, key):
    plugin = plugin_of(
        "crm", RESOURCE_IDS=(f"metadata.{key}",), teardown_account=hookimpl(lambda account: None)
    )
    for value, compared in VALUES:
        mine = account(metadata={key: value})
        assert look(stack.database, plugin, mine) is Verdict.FREE
        if (isinstance(value, str) and ("\0" in value or "\ud800" in value)) or value == 10**30:
            continue  # no table holds the first, and SQLite rounds the last
        other = stack.add(type="x", metadata={key: value})
        expected = Verdict.FREE if compared is None else Verdict.SUPERSEDED
        assert look(stack.database, plugin, mine) is expected, value
        stack.sql("DELETE FROM accounts WHERE id = ?", other)


@only("postgresql")
@pytest.mark.parametrize("type", ["json", "jsonb", "text", "varchar"])
def test_metadata_may_be_of_any_type_and_what_is_no_json_stands_in_nobodys_way(live, type):
    live.sql(f"ALTER TABLE accounts ALTER COLUMN metadata TYPE {type} USING metadata::text::{type}")
    seen = []
    plugin = plugin_of(
        "crm",
        RESOURCE_IDS=(f"metadata.{KEY}",),
        teardown_account=hookimpl(lambda account: seen.append(account.metadata[KEY])),
    )
    use_plugins(live, plugin)
    if type in ("text", "varchar"):
        live.sql(
            "INSERT INTO accounts (id, user_id, type, metadata) VALUES"
            f" ('{uuid.uuid4()}', '{uuid.uuid4()}', 'x', 'no json'),"
            f" ('{uuid.uuid4()}', '{uuid.uuid4()}', 'x', '[1]')"
        )
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for each, contact in zip(ids, ("1", "1", "2"), strict=True):
        live.sql(
            f"INSERT INTO accounts (id, user_id, type, metadata) VALUES"
            f" (?, ?, 'x', CAST(? AS {type}))",
            *(each, live.user_id, f'{{"{KEY}": {contact}}}'),
        )
    assert [live.delete(each).status_code for each in ids] == [200] * 3
    assert seen == [1, 2], "the first spared the second"


def test_a_plugin_without_ids_gets_a_warning_at_the_start(caplog, tmp_path, monkeypatch):
    source = "from puffle_accounts import hookimpl\n@hookimpl\ndef teardown_account(account): ...\n"
    write_distribution(tmp_path, "puffle-silent", source)
    monkeypatch.syspath_prepend(tmp_path)
    caplog.set_level(logging.INFO)
    loaded = loading.load(8, found=[EntryPoint("silent", "puffle_silent", loading.GROUP)])
    loading.configure(loaded, {})
    [warning] = [each for each in caplog.records if each.getMessage() == "plugin.undeclared"]
    assert (warning.levelname, warning.plugin) == ("WARNING", "silent")
    assert "RESOURCE_IDS" in warning.reason


@only("sqlite")
def test_the_command_shows_the_fields_or_that_there_are_none(stack, crm):
    lines = stack.command("plugins", **crm.environ).stdout.splitlines()
    shown = {line.split()[0]: line for line in lines}
    assert "metadata.crm_contact_id" in shown["puffle-crm"]
    assert "instantly_account_id, email_address" in shown["instantly"]
