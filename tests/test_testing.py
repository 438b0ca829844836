"""The kit for plugin authors, used as an author would use it."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import puffle_agentmail
import pytest
import requests

from puffle_accounts import Account, TeardownFailed, hookimpl, testing
from puffle_accounts.testing import (
    BrokenPlugin,
    FakeProvider,
    PluginConformance,
    PluginService,
    Reply,
    Result,
    account,
    call,
    check,
)
from puffle_accounts.testing.application import undisturbed
from puffle_accounts.testing.calls import KEY
from puffle_accounts.upstream import ClientCredentials, Upstream, request_id

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


# A word each


@pytest.mark.parametrize(
    ("word", "error", "said"),
    [
        ("refuse", requests.ConnectionError, "refused"),
        ("reset", requests.ConnectionError, "reset"),
        ("break_off", requests.ConnectionError, "without response"),
        ("garbage", requests.ConnectionError, "BadStatusLine"),
        ("cut", requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
        ("hang", requests.ReadTimeout, "timed out"),
    ],
)
def test_a_provider_misbehaves_at_a_word(word, error, said, fake_provider):
    assert getattr(fake_provider, word)() is fake_provider
    with pytest.raises(error, match=said):
        requests.get(fake_provider.url, timeout=0.5 if word == "hang" else 10)
    assert len(fake_provider.requests) == (0 if word == "refuse" else 1)


def test_a_provider_drips_for_ever(fake_provider):
    fake_provider.drip()
    with socket.create_connection(("127.0.0.1", int(fake_provider.url.rpartition(":")[2]))) as c:
        c.sendall(b"GET / HTTP/1.1\r\n\r\n")
        drops = [c.recv(1) for _ in range(len(b"HTTP/1.1 200 OK\r\nX-Slow: ") + 2)]
    assert b"".join(drops) == b"HTTP/1.1 200 OK\r\nX-Slow: xx"


def test_a_provider_redirects_to_itself_or_elsewhere(fake_provider):
    fake_provider.redirect().redirect(307, "https://elsewhere.example/")
    first, second = (requests.get(fake_provider.url, allow_redirects=False) for _ in range(2))
    assert (first.status_code, first.headers["Location"]) == (302, f"{fake_provider.url}/elsewhere")
    assert (second.status_code, second.headers["Location"]) == (307, "https://elsewhere.example/")


def test_words_take_their_turn_among_answers_and_a_refusal_ends_kept_connections(fake_provider):
    fake_provider.answer(201).break_off().answer(202)
    with requests.Session() as session:
        assert session.get(fake_provider.url).status_code == 201
        with pytest.raises(requests.ConnectionError):
            session.get(fake_provider.url)
        assert session.get(fake_provider.url).status_code == 202
        fake_provider.refuse()
        with pytest.raises(requests.ConnectionError):
            session.get(fake_provider.url)
    assert len(fake_provider.requests) == 3


# The fixtures


@pytest.fixture
def contact():
    return account(metadata={"contact": "c-1"})


def test_a_teardown_is_at_the_fake_provider_and_what_is_said_is_scrubbed(
    teardown, fake_provider, my_plugin, contact, monkeypatch
):
    assert teardown(my_plugin, contact).said == "contact deleted"
    assert fake_provider.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("MY_OWN_API_KEY", "a-key-that-echoes")
    echo = Plugin(lambda: fail(TeardownFailed("refused: a-key-that-echoes")))
    assert teardown(echo, contact).failure == "refused: ***"


def test_the_service_ends_accounts_with_the_plugin_alone(
    service, fake_provider, my_plugin, contact
):
    alone = service(my_plugin)
    fake_provider.answer(503, {"code": "busy"})
    ended = alone.add(contact)
    response = alone.delete(ended, Idempotency_Key="once")
    assert (response.status_code, response.json) == (200, {"success": True})
    assert response.headers["Teardown-Status"] == "partial"
    assert alone.delete(ended).status_code == 404
    [orphan] = alone.orphans()
    assert (orphan["reason"], orphan["account_id"]) == (
        "Example: contact delete: 503 busy",
        ended.id,
    )
    assert alone.retry() == {"failed": 1}
    fake_provider.answer(401)
    assert alone.retry() == {"parked": 1}
    assert alone.retry(parked=False) == {}
    fake_provider.answer(204)
    assert alone.retry() == {"done": 1}
    assert alone.orphans() == []
    assert {sent.path for sent in fake_provider.requests} == {"/contacts/c-1"}
    ids = [sent.headers["X-Request-ID"] for sent in fake_provider.requests]
    assert set(ids) == {response.headers["X-Request-ID"]}
    assert request_id() is None, "the request's id is not that of the test"


def test_another_service_has_a_database_of_its_own_and_accounts_of_any_kind(
    service, fake_provider, my_plugin
):
    first, second = service(my_plugin), service(my_plugin)
    ended = second.add(type="linkedin", status="connected", provider_account_id="acc-1")
    assert second.delete(ended.id).headers["Teardown-Status"] == "complete"
    assert second.delete(ended).status_code == 200, "the second one is a hard delete"
    assert second.delete(ended).status_code == 404
    assert first.orphans() == fake_provider.requests == []


def test_the_ledger_shows_a_plugin_by_the_name_it_is_registered_by(
    service, fake_provider, my_plugin
):
    fake_provider.answer(500)
    for plugin, name in ((puffle_agentmail, "agentmail"), (my_plugin, "plugin-under-test")):
        alone = service(plugin)
        alone.delete(alone.add(agentmail_inbox_id="inbox-1", metadata={"contact": "c-1"}))
        assert [orphan["plugin"] for orphan in alone.orphans()] == [name]


def test_the_service_leaves_the_log_as_it_was(my_plugin, tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])  # an author's own
    before = root.handlers[:], root.level
    with undisturbed():
        PluginService(my_plugin, tmp_path).close()
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before


ALONE = """
import sys

def test_nothing_comes_along(request):
    assert "puffle_accounts" in dict(request.config.pluginmanager.list_name_plugin())
    ours = [name for name in sys.modules if name.partition(".")[0] in {
        "puffle_accounts", "flask", "peewee", "requests", "structlog", "httptools"
    }]
    assert ours == []

def test_the_fixtures_are_there(fake_provider, teardown, service):
    assert fake_provider.url
"""


def test_a_run_that_does_not_use_the_kit_imports_nothing_of_it(tmp_path):
    (tmp_path / "test_alone.py").write_text(ALONE)
    pytest_alone = (sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "--rootdir", ".")
    done = subprocess.run(pytest_alone, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# The proof


class Forgetful(PluginConformance):
    """Of a plugin that does nothing at all."""

    plugin = Plugin(lambda: None)
    theirs = account()
    not_theirs = account(type="linkedin")
    key_variable = "FORGETFUL_API_KEY"
    done = Reply(200)
    gone = Reply(404, {"code": "not_found"})


def test_the_proof_of_a_plugin_says_what_is_missing(fake_provider, monkeypatch):
    proof = Forgetful()
    proof.provider, proof.monkeypatch = fake_provider, monkeypatch
    for test, said in (
        (proof.test_what_is_done_is_said, "say in a few words what was done"),
        (proof.test_each_of_its_resource_ids_names_what_is_called, "declare RESOURCE_IDS"),
        (proof.test_the_key_is_sent, "no request has FORGETFUL_API_KEY"),
    ):
        with pytest.raises(AssertionError, match=said):
            test()
    with pytest.raises(pytest.skip.Exception, match="no find_resources"):
        proof.test_the_list_is_read_to_its_last_page()


def test_what_needs_pytest_is_imported_when_it_is_asked_for():
    with pytest.raises(AttributeError, match="no attribute 'PluginConformances'"):
        _ = testing.PluginConformances


class TestOAuth(PluginConformance):
    """A plugin whose client fetches a token first."""

    plugin = SimpleNamespace(
        RESOURCE_IDS=("metadata.contact",),
        crm=Upstream(
            "OAuth",
            key_variable="OAUTH_CLIENT_SECRET",
            base_url_variable="OAUTH_BASE_URL",
            base_url="https://api.example.com",
            authenticate=ClientCredentials(
                "OAUTH_CLIENT_ID", "OAUTH_TOKEN_URL", "https://login.example.com/token"
            ),
            code="code",
            is_gone=lambda body: body.get("code") == "not_found",
        ),
    )
    theirs = account(metadata={"contact": "c-1"})
    not_theirs = account()
    key_variable = "OAUTH_CLIENT_SECRET"
    first = (Reply(200, {"access_token": "t-1", "token_type": "Bearer"}),)
    done = Reply(204)
    gone = Reply(404, {"code": "not_found"})

    @hookimpl
    def teardown(account):
        crm = TestOAuth.plugin.crm
        removed = crm.delete("contacts", str(account.metadata["contact"]), tried="contact delete")
        return "contact deleted" if removed else "contact was not there"

    @hookimpl
    def check():
        TestOAuth.plugin.crm.get("contacts", tried="credentials check")

    plugin.teardown_account, plugin.check_provider = teardown, check
