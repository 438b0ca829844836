"""`orphans find`, `adopt` and `count`: what was left before, or behind the service's back."""

from __future__ import annotations

import json
import re
import sys
import uuid

import pytest
from click.testing import Result
from orphanage import failed, leave, record
from support import invoke, only, plugin_of, write_distribution

from puffle_accounts import Resource, TeardownFailed, clock, hookimpl
from puffle_accounts.hooks import registry
from puffle_accounts.orphans.forgotten import Search
from puffle_accounts.testing import FakeProvider, account, holdings

NOBODY = str(uuid.UUID(int=0))
PROVIDERS = ("unipile", "instantly", "agentmail")


@pytest.fixture
def command(stack):
    def run(*arguments: str, **environ: str) -> Result:
        return invoke({**stack.environ, **environ}, "orphans", *arguments)

    return run


def found(result: Result) -> set[tuple[str, str]]:
    return {(row["plugin"], row["resource_id"]) for row in json.loads(result.stdout)}


@pytest.fixture
def forgotten(stack) -> set[tuple[str, str]]:
    """What nobody names, beside what accounts and what orphans name."""
    stack.sandbox.page = 3
    for _ in range(7):
        stack.add_email()
        stack.add_linkedin()
    for provider in PROVIDERS:
        leave(stack, 5, provider)
    left = {(provider, f"forgotten-{n}@x.example") for provider in PROVIDERS for n in range(4)}
    for provider, resource_id in left:
        stack.sandbox.add(provider, resource_id)
    return left


def test_what_nobody_names_is_found_adopted_retried_and_then_all_is_clean(
    stack, command, forgotten
):
    before = {provider: set(held) for provider, held in stack.sandbox.resources.items()}
    result = command("find", "--json")
    assert (result.exit_code, found(result)) == (1, forgotten)
    assert stack.sandbox.resources == before, "it changes nothing"
    assert {call.method for call in stack.sandbox.calls} == {"GET"}
    for provider in PROVIDERS:
        ids = [resource_id for name, resource_id in forgotten if name == provider]
        adopted = command("adopt", provider, *ids, "--reason", "nobody's")
        assert (adopted.exit_code, len(adopted.stdout.splitlines())) == (0, 4)
    assert (command("find").exit_code, command("find", "--json").stdout) == (0, "[]\n")
    assert command("retry").stdout.startswith("27 done")
    assert command("find").exit_code == 0
    assert {provider: len(held) for provider, held in stack.sandbox.resources.items()} == {
        "unipile": 7,
        "instantly": 7,
        "agentmail": 7,
    }


def test_it_is_shown_as_a_table_the_oldest_first_with_the_totals(stack, command, forgotten):
    result = command("find")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["PLUGIN", "CREATED", "RESOURCE", "NAME"]
    assert [line.split()[1] for line in lines[1:13]] == ["2026-01-02"] * 12
    assert lines[-1] == ("12 resources that nobody names: 4 agentmail, 4 instantly, 4 unipile")


def test_json_has_what_the_contract_says(stack, command):
    stack.sandbox.add("agentmail", "forgotten@x.example")
    assert json.loads(command("find", "--json").stdout) == [
        {
            "plugin": "agentmail",
            "resource_id": "forgotten@x.example",
            "name": None,
            "created_at": "2026-01-02T03:04:05.678000+00:00",
        }
    ]


@pytest.mark.parametrize(("hours", "code"), [("24", 0), ("0", 1)])
@only("sqlite")
def test_what_is_young_may_belong_to_an_account_that_is_being_connected(
    stack, command, monkeypatch, hours, code
):
    monkeypatch.setattr("puffle_accounts.demo.envelopes._BORN", "2999-01-01T00:00:00Z")
    stack.sandbox.add("agentmail", "new@x.example")
    assert command("find", "--older-than", hours).exit_code == 0
    monkeypatch.setattr("puffle_accounts.demo.envelopes._BORN", "yesterday, perhaps")
    assert command("find", "--older-than", hours).exit_code == 1, "of unknown age"


def test_what_only_a_disconnected_linkedin_account_names_is_used_by_nobody(stack, command):
    stack.add_linkedin(provider_account_id="acc-1", status="disconnected")
    assert found(command("find", "--json")) == {("unipile", "acc-1")}


def test_a_provider_that_cannot_be_asked_is_named_and_the_others_are_shown(stack, command):
    stack.sandbox.add("agentmail", "forgotten@x.example")
    stack.sandbox.behave("unipile", "fail")
    result = command("find", "--json")
    assert (result.exit_code, found(result)) == (2, {("agentmail", "forgotten@x.example")})
    assert "unipile could not be asked: Unipile: session list: 500" in result.stderr
    stack.sandbox.resources["agentmail"].clear()
    assert command("find").exit_code == 2, "never like a clean one"


@only("sqlite")
@pytest.mark.parametrize(
    ("does", "traced"),
    [
        ("1 / 0", True),
        ("raise SystemExit(3)", True),
        ("raise GeneratorExit", True),
        ("raise RecursionError", True),
        ("raise BaseException('of its own')", True),
        ("yield 'x'", False),
    ],
)
def test_a_plugin_that_fails_by_itself_is_logged_as_an_error(
    stack, command, tmp_path, monkeypatch, events, does, traced
):
    source = f"""
from puffle_accounts import hookimpl

RESOURCE_IDS = ("email_address",)

@hookimpl
def teardown_account(account):
    pass

@hookimpl
def find_resources():
    {does}
    yield
"""
    write_distribution(tmp_path, "puffle-faulty", source, "crm = puffle_faulty")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "puffle_faulty", raising=False)
    result = command("find", "--plugin", "crm")
    assert result.exit_code == 2
    assert re.search(r"^crm could not be asked: \S", result.stderr, re.MULTILINE)
    [fault] = [fields for event, fields in events() if event == "plugin.failed"]
    assert (fault["levelname"], fault["plugin"], fault["hook"]) == (
        *("ERROR", "crm"),
        "find_resources",
    )
    assert bool(fault["exc_info"]) is traced


def test_one_plugin_alone_can_be_asked(stack, command, forgotten):
    result = command("find", "--plugin", "agentmail", "--json")
    assert {plugin for plugin, _ in found(result)} == {"agentmail"}
    refused = command("find", "--plugin", "agentmial")
    assert (refused.exit_code, "agentmial" in refused.stderr) == (2, True)


def test_accounts_that_their_provider_does_not_know_are_listed_on_the_same_pass(stack, command):
    known = stack.add_linkedin()
    gone, without = (
        stack.add_linkedin(provider_account_id="acc-gone"),
        stack.add_linkedin(provider_account_id=None),
    )
    stack.sandbox.resources["unipile"].discard("acc-gone")
    result = command("find", "--missing", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        1,
        [{"plugin": "unipile", "resource_id": "acc-gone", "account_id": gone, "missing": True}],
    )
    assert gone in command("find", "--missing").stdout
    assert all(stack.row(each) for each in (known, gone, without)), "nothing is done about it"
    stack.sandbox.behave("unipile", "fail")
    assert json.loads(command("find", "--missing", "--json").stdout) == []


# Adopting


def test_an_adopted_resource_is_an_orphan_of_nobody(stack, command):
    adopted = command("adopt", "instantly", "A@b.example", "--reason", "left in 2024")
    assert (adopted.exit_code, adopted.stdout) == (0, "adopted A@b.example\n")
    [orphan] = stack.orphans()
    assert (orphan["account_id"], orphan["user_id"]) == (NOBODY, NOBODY)
    assert (orphan["reason"], orphan["attempts"], orphan["parked_at"]) == ("left in 2024", 0, None)
    assert orphan["account"]["instantly_account_id"] == "A@b.example"
    assert orphan["account"]["type"] == "email"
    again = command("adopt", "instantly", "a@B.example", "--reason", "again")
    assert (again.stdout, len(stack.orphans())) == ("1 resource had an orphan already\n", 1)
    twice = command("adopt", "instantly", "c@D.example", "C@d.example", "--reason", "one address")
    assert (twice.stdout.count("adopted"), len(stack.orphans())) == (1, 2)


def test_what_a_live_account_uses_is_refused_and_all_others_with_it(stack, command):
    stack.add_email(email_address="used@x.example", instantly_account_id=None)
    refused = command("adopt", "instantly", "a@x.example", "Used@x.example", "--reason", "x")
    assert refused.exit_code == 1
    assert "Used@x.example" in refused.stderr
    assert "a@x.example" not in refused.stderr
    assert stack.orphans() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("agentmial", "i", "--reason", "x"),
        ("agentmail", "i", "--reason", " "),
        ("agentmail", "", "--reason", "x"),
        ("agentmail", "a\nb", "--reason", "x"),
        ("agentmail", "--reason", "x"),
        ("agentmail", "i"),
    ],
)
@only("sqlite")
def test_a_bad_argument_is_refused_in_a_line_and_nothing_is_adopted(stack, command, arguments):
    refused = command("adopt", *arguments)
    assert refused.exit_code in (1, 2)
    assert "Traceback" not in refused.stderr
    assert stack.orphans() == []


def test_the_retry_looks_once_more(stack, command):
    stack.sandbox.add("agentmail", "inbox-1")
    command("adopt", "agentmail", "inbox-1", "--reason", "x")
    stack.add_email(agentmail_inbox_id="inbox-1")
    assert "1 superseded" in command("retry").stdout
    assert "inbox-1" in stack.sandbox.resources["agentmail"]


def test_an_id_in_metadata_is_adopted_there(stack, command, tmp_path, monkeypatch):
    source = """
from puffle_accounts import hookimpl
RESOURCE_IDS = ("metadata.contact",)
@hookimpl
def teardown_account(account):
    return f"{account.metadata['contact']} deleted"
"""
    write_distribution(tmp_path, "puffle-contacts", source)
    monkeypatch.syspath_prepend(tmp_path)
    assert command("adopt", "puffle-contacts", "c-1", "--reason", "x").exit_code == 0
    assert stack.orphans()[0]["account"]["metadata"] == {"contact": "c-1"}
    assert "1 done" in command("retry").stdout


# Counting


def test_orphans_are_counted_by_plugin_for_alerts(stack, command):
    leave(stack, 3, "unipile")
    leave(stack, 2, "unipile", retry_after=600)
    leave(stack, 1, "agentmail", permanent=True)
    counted = json.loads(command("count", "--json").stdout)
    assert [(each["plugin"], each["due"], each["waiting"], each["parked"]) for each in counted] == [
        ("agentmail", 0, 0, 1),
        ("unipile", 3, 2, 0),
    ]
    assert all(0 <= each["oldest_seconds"] < 600 for each in counted)
    lines = command("count").stdout.splitlines()
    assert lines[2].split()[:4] == ["unipile", "3", "2", "0"]


@only("sqlite")
def test_without_orphans_there_is_nothing_to_count(command):
    assert command("count", "--json").stdout == "[]\n"


# Lists that cannot be trusted

ODD = {
    "a web page": (b"<html>log in</html>", "web page"),
    "no JSON": (b"[", "JSON"),
    "no list": ({"data": []}, "list of inboxes"),
    "another kind of list": ({"inboxes": {}}, "list of inboxes"),
    "items that are none": ({"inboxes": ["a"]}, "list of inboxes"),
    "an item without an id": ({"inboxes": [{"inbox_id": ""}]}, "inbox_id"),
    "an item whose id is none": ({"inboxes": [{"inbox_id": True}]}, "inbox_id"),
    "a cursor that comes twice": ({"inboxes": [], "next_page_token": "t"}, "cursor"),
}


@pytest.mark.parametrize(("body", "said"), ODD.values(), ids=ODD)
def test_a_list_that_cannot_be_trusted_is_refused(monkeypatch, body, said):
    import puffle_agentmail

    with FakeProvider() as provider:
        monkeypatch.setenv("AGENTMAIL_API_KEY", "any")
        monkeypatch.setenv("AGENTMAIL_BASE_URL", provider.url)
        provider.answer(200, body)
        with pytest.raises(TeardownFailed, match=said):
            list(holdings(puffle_agentmail))


def test_an_id_that_comes_twice_is_no_news_and_odd_ids_are_compared_as_they_are(stack):
    odd = ["x" * 10_000, 'o\'r "q" % ?', "Ä@x.example", "7"]

    @hookimpl
    def find_resources():
        for each in (*odd, *odd):
            yield Resource(each)

    plugin = plugin_of(
        "crm",
        RESOURCE_IDS=("metadata.n", "email_address"),
        teardown_account=hookimpl(lambda account: None),
        find_resources=find_resources,
    )
    search = Search(stack.database, plugin, clock.now())
    search.compare(registry.holdings(plugin))
    assert sorted(each.id for each in search.forgotten.values()) == sorted(odd)
    stack.add(type="x", metadata={"n": 7})
    record(stack, failed("crm", account(email_address="ä@x.example")))
    search = Search(stack.database, plugin, clock.now())
    search.compare(registry.holdings(plugin))
    assert sorted(each.id for each in search.forgotten.values()) == sorted(odd[:2])


@pytest.mark.parametrize("given", ["x", None, Resource(""), 1])
def test_what_is_no_resource_is_refused(given):
    @hookimpl
    def find_resources():
        yield given

    plugin = plugin_of(
        "crm",
        RESOURCE_IDS=("email_address",),
        teardown_account=hookimpl(lambda account: None),
        find_resources=find_resources,
    )
    with pytest.raises(TeardownFailed):
        list(registry.holdings(plugin))


def test_a_busy_provider_is_waited_for(monkeypatch):
    import puffle_agentmail

    with FakeProvider() as provider:
        monkeypatch.setenv("AGENTMAIL_API_KEY", "any")
        monkeypatch.setenv("AGENTMAIL_BASE_URL", provider.url)
        provider.answer(429, {"code": "rate_limit_exceeded"}, Retry_After="0.1")
        provider.answer(200, {"inboxes": [{"inbox_id": "i"}]})
        assert [each.id for each in holdings(puffle_agentmail)] == ["i"]


def test_only_linkedin_sessions_are_unipiles_to_look_at(monkeypatch):
    import puffle_unipile

    with FakeProvider() as provider:
        monkeypatch.setenv("UNIPILE_API_KEY", "any")
        monkeypatch.setenv("UNIPILE_BASE_URL", provider.url)
        items = [{"id": "a", "type": "LINKEDIN", "name": "Ada"}, {"id": "m", "type": "MAIL"}]
        provider.answer(200, {"object": "AccountList", "items": items, "next_cursor": "2"})
        provider.answer(200, {"object": "AccountList", "items": [], "cursor": None})
        assert list(holdings(puffle_unipile)) == [Resource("a", "Ada")]
        assert [each.path for each in provider.requests] == [
            "/accounts?limit=250",
            "/accounts?limit=250&cursor=2",
        ]
