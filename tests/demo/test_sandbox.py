"""The stand-ins of the three providers: they answer as the facts say, and misbehave as told."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import puffle_agentmail
import puffle_instantly
import puffle_unipile
import pytest
import requests
from support import wait_until

from puffle_accounts.demo.sandbox import MODES, OWN_MODES, PROVIDERS, Call, Sandbox
from puffle_accounts.testing import account, call, check

PATHS = {
    "unipile": "/accounts",
    "instantly": "/api/v2/accounts",
    "agentmail": "/v0/inboxes",
}
PLUGINS = {
    "unipile": (puffle_unipile, {"type": "linkedin", "provider_account_id": "a@b.co"}),
    "instantly": (puffle_instantly, {"instantly_account_id": "a@b.co"}),
    "agentmail": (puffle_agentmail, {"agentmail_inbox_id": "a@b.co"}),
}
GONE = {
    "unipile": {"title": "Not Found", "type": "errors/resource_not_found", "status": 404},
    "instantly": {"statusCode": 404, "error": "Not Found", "message": "Resource not found"},
    "agentmail": {"name": "NotFoundError", "code": "not_found", "message": "Not Found"},
}
# mode -> status, and whether what the plugin makes of it is permanent
MEANINGS = {
    "fail": (500, False),
    "rate-limit": (429, False),
    "refuse": (401, True),
    "unpaid": (402, True),
    "no_client_session": (503, False),
    "request_timeout": (504, False),
    "active_campaigns": (400, True),
    "resource_deleting": (403, False),
    "cannot_delete": (403, False),
    "missing_permission": (403, True),
    "forbidden": (403, True),
    "race_condition": (409, False),
}

each_provider = pytest.mark.parametrize("provider", PROVIDERS)
each_mode = pytest.mark.parametrize(
    ("provider", "mode"),
    [
        (provider, mode)
        for provider in PROVIDERS
        for mode in (*MODES, *OWN_MODES[provider])
        if mode not in ("ok", "hang")
    ],
)


@pytest.fixture(autouse=True)
def _environment(sandbox, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ask(sandbox):
    """Send a request below a provider's base URL, with its key."""
    environ = sandbox.environment

    def ask(method, provider, path, key=None, **more):
        url = environ[f"{provider.upper()}_BASE_URL"]
        key = key or environ[f"{provider.upper()}_API_KEY"]
        header = ("X-API-KEY", key) if provider == "unipile" else ("Authorization", f"Bearer {key}")
        headers = dict([header]) | more.pop("headers", {})
        return requests.request(method, url + path, headers=headers, timeout=30, **more)

    return ask


@pytest.fixture
def delete(ask):
    def delete(provider, thing="a@b.co", **more):
        return ask("DELETE", provider, f"{PATHS[provider]}/{quote(thing, safe='')}", **more)

    return delete


# As the facts say


@each_provider
def test_what_exists_is_deleted_once_and_is_gone_afterwards(provider, sandbox, delete):
    sandbox.add(provider, "a@b.co")
    sandbox.add(provider, "stays@b.co")
    done = delete(provider)
    again = delete(provider)
    assert done.status_code == 200
    assert (again.status_code, again.json()) == (404, GONE[provider])
    assert sandbox.resources[provider] == {"stays@b.co"}


def test_each_provider_answers_a_delete_in_its_own_words(sandbox, delete):
    for provider in PROVIDERS:
        sandbox.add(provider, "a@b.co")
    assert delete("unipile").json() == {"object": "AccountDeleted"}
    assert delete("instantly").json()["email"] == "a@b.co"
    assert delete("agentmail").content == b""


@each_provider
@pytest.mark.parametrize("thing", ["a/b", "../webhooks", "a?b=c", "%2F", "日本", "a b"])
def test_an_id_is_one_segment_whatever_is_in_it(provider, thing, sandbox, delete):
    sandbox.add(provider, thing)
    assert delete(provider, thing).status_code == 200
    assert sandbox.resources[provider] == set()


def test_instantly_finds_an_address_in_whatever_case(sandbox, delete):
    sandbox.add("instantly", "Ada@B.co")
    sandbox.add("unipile", "Acc-1")
    assert delete("instantly", "aDA@b.CO").status_code == 200
    assert delete("unipile", "acc-1").status_code == 404


def test_unipile_v2_has_an_envelope_of_its_own(sandbox):
    sandbox.add("unipile", "acc_1")
    url = sandbox.environment["UNIPILE_BASE_URL"].replace("/api/v1", "/v2")
    key = {"X-API-KEY": sandbox.environment["UNIPILE_API_KEY"]}
    first, second = (
        requests.delete(f"{url}/accounts/acc_1", headers=key, timeout=30) for _ in "12"
    )
    assert first.status_code == 200
    assert second.status_code == 404
    assert second.json()["object"] == "Error"
    assert second.json()["type"].startswith("api/")


@each_provider
def test_a_wrong_key_is_a_401_and_deletes_nothing(provider, sandbox, delete):
    sandbox.add(provider, "a@b.co")
    assert delete(provider, key="wrong").status_code == 401
    assert sandbox.resources[provider] == {"a@b.co"}


@each_provider
@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/elsewhere"), ("DELETE", ""), ("PUT", ""), ("DELETE", "/a/b"), ("DELETE", "//a")],
)
def test_a_wrong_url_or_method_is_no_404_of_the_providers_own(provider, method, path, ask):
    path = path if path == "/elsewhere" else PATHS[provider] + path
    answer = ask(method, provider, path)
    if provider == "instantly":
        assert answer.status_code == 404
        assert answer.json()["message"] == f"Route {method}:{path} not found"
    else:
        assert answer.status_code in (404, 405)
        assert answer.text.startswith("<")


@each_provider
def test_the_list_takes_a_limit(provider, sandbox, ask):
    for thing in ("a@b.co", "b@b.co", "c@b.co"):
        sandbox.add(provider, thing)
    everything = ask("GET", provider, PATHS[provider]).json()
    some = ask("GET", provider, PATHS[provider], params={"limit": "1"}).json()
    name = "inboxes" if provider == "agentmail" else "items"
    assert (len(everything[name]), len(some[name])) == (3, 1)


def test_instantly_refuses_a_delete_that_claims_json_and_has_none(sandbox, delete):
    sandbox.add("instantly", "a@b.co")
    answer = delete("instantly", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "FST_ERR_CTP_EMPTY_JSON_BODY")
    assert sandbox.resources["instantly"] == {"a@b.co"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"emails": ["a@b.co"]}, 200),
        ({"emails": []}, 400),
        ({}, 400),
        (["a@b.co"], 400),
        ({"include_all_emails": True}, 400),
        ({"emails": ["a@b.co"], "include_all_emails": True}, 400),
    ],
)
def test_instantlys_warm_up_is_disabled_for_named_addresses_alone(body, status, sandbox, ask):
    sandbox.add("instantly", "a@b.co")
    answer = ask("POST", "instantly", "/api/v2/accounts/warmup/disable", json=body)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["status"] == "pending"
    assert sandbox.resources["instantly"] == {"a@b.co"}


# As told


@each_mode
def test_a_mode_is_what_the_provider_would_say_and_touches_nothing(provider, mode, sandbox, delete):
    sandbox.add(provider, "a@b.co")
    sandbox.behave(provider, mode)
    status, _ = MEANINGS[mode]
    answer = delete(provider)
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("30" if mode == "rate-limit" else None)
    assert sandbox.resources[provider] == {"a@b.co"}
    sandbox.behave(provider, "ok")
    assert delete(provider).status_code == 200


@each_mode
def test_a_plugin_takes_a_mode_for_what_it_stands_for(provider, mode, sandbox):
    plugin, ids = PLUGINS[provider]
    sandbox.behave(provider, mode)
    status, permanent = MEANINGS[mode]
    result = call(plugin, account(**ids))
    assert f": {status}" in result.failure
    assert (result.permanent, result.retry_after) == (permanent, 30 * (mode == "rate-limit"))
    assert f": {status}" in check(plugin)


@each_provider
def test_a_plugin_is_content_with_a_healthy_provider(provider, sandbox):
    plugin, ids = PLUGINS[provider]
    sandbox.add(provider, "a@b.co")
    assert check(plugin) is None
    assert call(plugin, account(**ids)).said.endswith(("deleted", "revoked"))
    assert call(plugin, account(**ids)).said.endswith("was not there")
    assert sandbox.resources[provider] == set()


def test_one_providers_mode_is_not_the_others(sandbox, delete):
    sandbox.behave("agentmail", "fail")
    sandbox.add("unipile", "a@b.co")
    assert delete("unipile").status_code == 200


@each_provider
def test_a_request_that_hangs_is_answered_when_the_mode_changes(provider, sandbox, delete):
    sandbox.add(provider, "a@b.co")
    sandbox.behave(provider, "hang")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(delete, provider)
        wait_until(lambda: sandbox.calls)
        assert (sandbox.calls[0].status, answer.done()) == (None, False)
        sandbox.behave(provider, "ok")
        assert answer.result(30).status_code == 200
    assert sandbox.resources[provider] == set()


@each_provider
def test_a_request_whose_client_gave_up_while_it_hung_does_nothing(provider, sandbox):
    sandbox.add(provider, "a@b.co")
    sandbox.behave(provider, "hang")
    plugin, ids = PLUGINS[provider]
    before = threading.active_count()
    assert call(plugin, account(**ids), seconds=0.5).failure
    sandbox.behave(provider, "ok")
    wait_until(lambda: threading.active_count() <= before)  # nobody works on it any more
    assert sandbox.resources[provider] == {"a@b.co"}


def test_the_end_of_the_sandbox_drops_what_hangs():
    sandbox = Sandbox()
    sandbox.start()
    sandbox.behave("unipile", "hang")
    url = sandbox.environment["UNIPILE_BASE_URL"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(requests.delete, f"{url}/accounts/a", timeout=30)
        wait_until(lambda: sandbox.calls)
        sandbox.stop()
        assert isinstance(answer.exception(30), requests.ConnectionError)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


@pytest.mark.parametrize(
    ("provider", "mode", "choices"),
    [
        ("linkedin", "ok", PROVIDERS),
        ("unipile", "explode", MODES),
        ("unipile", "forbidden", ("no_client_session",)),
    ],
)
def test_what_nobody_can_be_told_is_refused_with_the_choices(provider, mode, choices, sandbox):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        sandbox.behave(provider, mode)
    assert all(choice in str(caught.value) for choice in choices)


# Its record, its port


def test_every_request_is_recorded_and_told_before_it_is_answered():
    told = []
    with Sandbox(on_call=told.append) as sandbox:
        environ = sandbox.environment
        for provider in PROVIDERS:
            requests.delete(
                f"{environ[f'{provider.upper()}_BASE_URL']}{PATHS[provider]}/a%2Fb",
                headers={"X-Request-ID": "r-1"},
                timeout=30,
            )
            assert len(told) == len(sandbox.calls)
        requests.get(environ["UNIPILE_BASE_URL"].replace("unipile", "nobody"), timeout=30)
    assert (
        told
        == sandbox.calls
        == [
            Call("unipile", "DELETE", "/api/v1/accounts/a%2Fb", 401, "r-1"),
            Call("instantly", "DELETE", "/api/v2/accounts/a%2Fb", 401, "r-1"),
            Call("agentmail", "DELETE", "/v0/inboxes/a%2Fb", 401, "r-1"),
            Call("", "GET", "/nobody/api/v1", 404, None),
        ]
    )


def test_no_key_is_recorded(sandbox, delete):
    delete("unipile")
    assert sandbox.environment["UNIPILE_API_KEY"] not in repr(sandbox.calls)


def test_many_requests_at_once_are_all_recorded_and_done_once(sandbox, delete):
    sandbox.add("agentmail", "a@b.co")
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: delete("agentmail").status_code, range(40)))
    assert sorted(statuses) == [200] + [404] * 39
    assert len(sandbox.calls) == 40


def test_one_connection_serves_many_requests_and_no_body_is_taken_for_the_next_one(sandbox):
    key = f"Bearer {sandbox.environment['AGENTMAIL_API_KEY']}"
    url = f"{sandbox.environment['AGENTMAIL_BASE_URL']}/v0/inboxes"
    before = threading.active_count()
    with requests.Session() as session:
        for method in ("DELETE", "GET", "POST", "GET"):
            answer = session.request(
                method, url, data=b"GET / HTTP/1.1\r\n\r\n", headers={"Authorization": key}
            )
            assert answer.status_code in (200, 405)
        assert threading.active_count() <= before + 1
    assert len(sandbox.calls) == 4


def test_a_taken_port_is_an_os_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), Sandbox(port=port):
            pass


def test_it_listens_where_it_is_told_and_its_environment_says_so():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Sandbox(port=port) as sandbox:
        environ = sandbox.environment
    assert set(environ) == {
        f"{p}_{v}" for p in ("UNIPILE", "INSTANTLY", "AGENTMAIL") for v in ("API_KEY", "BASE_URL")
    }
    assert environ["INSTANTLY_BASE_URL"] == f"http://127.0.0.1:{port}/instantly"


def test_before_its_start_and_after_its_end_there_is_nothing_to_point_to():
    sandbox = Sandbox()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            sandbox.environment  # noqa: B018
        sandbox.stop()
        sandbox.start()
        assert sandbox.environment
        sandbox.stop()
