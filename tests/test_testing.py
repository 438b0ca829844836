"""The kit for plugin authors, used as an author would use it."""

from __future__ import annotations

import sys
import time
from types import ModuleType

import pytest
import requests

from puffle_accounts import Account, TeardownFailed, hookimpl, testing
from puffle_accounts.testing import BrokenPlugin, FakeProvider, Result, account, call, check

PLUGIN = """
from puffle_accounts import hookimpl
from puffle_accounts.upstream import Upstream

ACCOUNT_TYPES = {"email"}

crm = Upstream(
    "Example",
    key_variable="EXAMPLE_API_KEY",
    base_url_variable="EXAMPLE_BASE_URL",
    base_url="https://api.example.com/v1",
    authenticate=lambda key: {"Authorization": f"Bearer {key}"},
    code="code",
    is_gone=lambda body: body.get("code") == "not_found",
)


@hookimpl
def teardown_account(account):
    contact = account.metadata.get("contact")
    if not contact:
        return None
    removed = crm.delete("contacts", contact, tried="contact delete")
    return "contact deleted" if removed else "contact was not there"


@hookimpl
def check_provider():
    crm.get("contacts", params={"limit": "1"}, tried="credentials check")
"""


@pytest.fixture(scope="module")
def my_plugin():
    module = ModuleType("my_plugin")
    exec(PLUGIN, vars(module))
    return module


@pytest.fixture
def example():
    """The example at the top of the kit's page."""
    found = {}
    exec(testing.__doc__.partition("\n\n")[2], vars(testing), found)
    return found["test_it_deletes_the_contact"]


@pytest.mark.parametrize("run", ["first", "second"])
def test_the_example_of_the_page_passes_as_often_as_it_is_run(run, example, my_plugin, monkeypatch):
    monkeypatch.setitem(example.__globals__, "my_plugin", my_plugin)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    example(monkeypatch)


def test_an_account_is_an_email_account_unless_told_otherwise():
    assert (account().type, account().status) == ("email", "connected")
    assert account().id != account().id
    told = account(type="linkedin", provider_account_id="acc-1", metadata={"a": [1]})
    assert (told.type, told.provider_account_id, told.metadata["a"]) == ("linkedin", "acc-1", (1,))
    assert Account.from_json(told.to_json()) == told


class Plugin:
    """A plugin that does what a test tells it."""

    ACCOUNT_TYPES = frozenset({"email"})

    def __init__(self, does):
        self.does = does

    @hookimpl
    def teardown_account(self, account):
        return self.does()


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("does", "result"),
    [
        (lambda: None, Result(None, None, 0.0, False)),
        (lambda: "contact\ndeleted", Result("contact deleted", None, 0.0, False)),
        (
            lambda: fail(TeardownFailed("busy", retry_after=60)),
            Result(None, "busy", 60.0, False),
        ),
        (
            lambda: fail(TeardownFailed("no key", permanent=True)),
            Result(None, "no key", 0.0, True),
        ),
        (lambda: fail(ValueError("oops")), Result(None, "ValueError: oops", 0.0, False)),
        (lambda: sys.exit(3), Result(None, "SystemExit: 3", 0.0, False)),
        (lambda: 42, Result(None, "returned int instead of None or text", 0.0, False)),
    ],
)
def test_a_call_tells_what_the_service_would_make_of_it(does, result):
    assert call(Plugin(does), account()) == result


def test_a_call_that_hangs_ends_at_its_deadline():
    result = call(Plugin(lambda: time.sleep(60)), account(), seconds=0.2)
    assert "deadline" in result.failure


def test_an_account_of_a_type_that_is_not_the_plugins_does_not_reach_it():
    plugin = Plugin(lambda: fail(AssertionError("called")))
    assert call(plugin, account(type="linkedin")) == Result(None, None, 0.0, False)


class Misspelt:
    @hookimpl
    def tear_down_account(self, account):
        """A hook that is not there."""


@pytest.mark.parametrize("use", [lambda plugin: call(plugin, account()), check])
def test_a_plugin_that_the_service_could_not_use_is_refused_with_the_reason(use):
    with pytest.raises(BrokenPlugin, match="tear_down_account"):
        use(Misspelt())


def test_a_check_says_why_credentials_were_refused(my_plugin, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("EXAMPLE_API_KEY", raising=False)
    assert check(my_plugin) == "Example: credentials check: EXAMPLE_API_KEY is not set"
    with FakeProvider() as provider:
        monkeypatch.setenv("EXAMPLE_API_KEY", "any")
        monkeypatch.setenv("EXAMPLE_BASE_URL", provider.url)
        assert check(my_plugin) is None
        provider.answer(401)
        assert check(my_plugin) == "Example: credentials check: 401 (check EXAMPLE_API_KEY)"
    assert [sent.path for sent in provider.requests] == ["/contacts?limit=1"] * 2


def test_a_provider_gives_the_answers_it_was_told_in_order_and_the_last_one_for_ever():
    with FakeProvider() as provider:
        assert requests.get(provider.url, timeout=10).status_code == 200
        provider.answer(404, {"code": "not_found"}).answer(503, b"<html>", Retry_After="7")
        answers = [requests.delete(f"{provider.url}/a%2Fb?c", timeout=10) for _ in range(3)]
        provider.answer(204)
        assert requests.post(provider.url, json=[1], timeout=10).status_code == 204
    assert [a.status_code for a in answers] == [404, 503, 503]
    assert answers[0].json() == {"code": "not_found"}
    assert (answers[2].content, answers[2].headers["Retry-After"]) == (b"<html>", "7")
    assert (provider.requests[1].method, provider.requests[1].path) == ("DELETE", "/a%2Fb?c")
    assert provider.requests[-1].body == b"[1]"


def test_a_provider_waits_before_an_answer_and_its_end_waits_for_nobody():
    with FakeProvider() as provider:
        provider.answer(200, delay=60)
        with pytest.raises(requests.ReadTimeout):
            requests.get(provider.url, timeout=0.5)
