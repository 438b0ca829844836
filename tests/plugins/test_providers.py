"""The three providers: what each is asked, and what each of its answers means."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field

import puffle_agentmail
import puffle_instantly
import puffle_unipile
import pytest
from wire import Wire, answer, hear, server_side

from puffle_accounts.testing import FakeProvider, account, call, check

ID = "acc/1?x=../y@ü"
QUOTED = "acc%2F1%3Fx%3D..%2Fy%40%C3%BC"
KEY = "key-of-the-tests"
HTML = b"<!doctype html><title>404: This page could not be found</title>"


@dataclass(frozen=True)
class Provider:
    """What is known of one of them."""

    name: str
    plugin: object
    id: dict
    path: str
    header: tuple[str, str]
    collection: str
    what: str
    done: str
    absent: str
    body: object  # of a 200
    gone: list = field(default_factory=list)
    code: str = "code"

    def __str__(self):
        return self.name

    @property
    def variable(self):
        return self.name.upper()


PROVIDERS = [
    Provider(
        "Unipile",
        puffle_unipile,
        {"type": "linkedin", "provider_account_id": ID},
        f"/accounts/{QUOTED}",
        ("X-API-KEY", KEY),
        "/accounts?limit=1",
        "session revoke",
        "session revoked",
        "session was not there",
        {"object": "AccountDeleted"},
        [
            {"title": "Not found", "type": "errors/resource_not_found", "status": 404},
            {"object": "Error", "type": "api/resource_not_found", "status": 404, "title": "x"},
        ],
        "type",
    ),
    Provider(
        "Instantly",
        puffle_instantly,
        {"type": "email", "instantly_account_id": ID},
        f"/api/v2/accounts/{QUOTED}",
        ("Authorization", f"Bearer {KEY}"),
        "/api/v2/accounts?limit=1",
        "account delete",
        "warm-up disabled, account deleted",
        "warm-up disabled, account was not there",
        {"email": ID, "warmup_status": 0},
        [{"statusCode": 404, "error": "Not Found", "message": "Resource not found"}],
    ),
    Provider(
        "AgentMail",
        puffle_agentmail,
        {"type": "email", "agentmail_inbox_id": ID},
        f"/v0/inboxes/{QUOTED}",
        ("Authorization", f"Bearer {KEY}"),
        "/v0/inboxes?limit=1",
        "inbox delete",
        "inbox deleted",
        "inbox was not there",
        None,
        [{"name": "NotFoundError", "code": "not_found", "message": "Inbox not found"}],
    ),
]
UNIPILE, INSTANTLY, AGENTMAIL = PROVIDERS

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=str)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for provider in PROVIDERS:
        monkeypatch.setenv(f"{provider.variable}_API_KEY", KEY)


@pytest.fixture
def http(monkeypatch):
    """The server that every provider's base URL points to."""
    with FakeProvider() as fake:
        for provider in PROVIDERS:
            monkeypatch.setenv(f"{provider.variable}_BASE_URL", fake.url)
        yield fake


def tear_down(provider: Provider, http: FakeProvider, seconds=10.0, **answered):
    """Let the provider give one answer to its DELETE; return what becomes of it."""
    if provider is INSTANTLY:
        http.answer(200, {"status": "pending"})
    http.answer(**answered)
    return call(provider.plugin, account(**provider.id), seconds)


def deletes(http: FakeProvider):
    return [sent for sent in http.requests if sent.method == "DELETE"]


# What is asked


@each_provider
def test_a_delete_is_sent_with_the_key_and_neither_body_nor_content_type(provider, http):
    assert tear_down(provider, http, status=200, body=provider.body).said == provider.done
    (sent,) = deletes(http)
    headers = {name.lower(): value for name, value in sent.headers.items()}
    name, value = provider.header
    assert (sent.path, sent.body) == (provider.path, b"")
    assert headers[name.lower()] == value
    assert headers["accept"] == "application/json"
    assert "content-type" not in headers


@each_provider
@pytest.mark.parametrize("type", ["email", "linkedin", "whatsapp"])
def test_an_account_that_holds_nothing_of_the_provider_asks_nobody(provider, type, http):
    result = call(provider.plugin, account(type=type))
    assert (result.said, result.failure) == (None, None)
    assert http.requests == []


@each_provider
def test_an_account_of_another_type_asks_nobody(provider, http):
    ids = {
        "provider_account_id": "a",
        "email_address": "a@b.co",
        "agentmail_inbox_id": "a@b.co",
        "instantly_account_id": "a@b.co",
    }
    for other in {"email", "linkedin", "whatsapp"} - {provider.id["type"]}:
        result = call(provider.plugin, account(type=other, **ids))
        assert (result.said, result.failure) == (None, None)
    assert http.requests == []


@pytest.mark.parametrize(
    ("ids", "address"),
    [
        ({"instantly_account_id": "i@b.co", "email_address": "e@b.co"}, "i@b.co"),
        ({"email_address": "e@b.co"}, "e@b.co"),
        ({"instantly_account_id": "", "email_address": "e@b.co"}, "e@b.co"),
    ],
)
def test_instantly_disables_the_warm_up_of_this_one_address_and_then_deletes_it(ids, address, http):
    http.answer(200, {"status": "pending"}).answer(200, {"email": address})
    result = call(puffle_instantly, account(**ids))
    assert result.said == "warm-up disabled, account deleted"
    disable, delete = http.requests
    assert (disable.method, disable.path) == ("POST", "/api/v2/accounts/warmup/disable")
    assert disable.headers["Content-Type"] == "application/json"
    assert disable.headers["Authorization"] == f"Bearer {KEY}"
    assert json.loads(disable.body) == {"emails": [address]}
    assert (delete.method, delete.path) == (
        "DELETE",
        f"/api/v2/accounts/{address.replace('@', '%40')}",
    )


@each_provider
@pytest.mark.parametrize("given", ["/", "//", " "])
def test_a_slash_at_the_end_of_the_base_url_changes_nothing(provider, given, http, monkeypatch):
    monkeypatch.setenv(f"{provider.variable}_BASE_URL", http.url + given)
    tear_down(provider, http, status=200)
    assert [sent.path for sent in deletes(http)] == [provider.path]


@pytest.mark.parametrize("base", ["/v2", "/api/v1"])
def test_unipile_takes_the_same_path_below_either_versions_base_url(base, http, monkeypatch):
    monkeypatch.setenv("UNIPILE_DSN", "api8.unipile.com:13851")  # the base URL wins
    monkeypatch.setenv("UNIPILE_BASE_URL", http.url + base)
    assert tear_down(UNIPILE, http, status=204).said == "session revoked"
    assert http.requests[0].path == f"{base}/accounts/{QUOTED}"


def test_unipile_is_asked_at_its_dsn_by_tls_and_v1(certificate, monkeypatch):
    heard = []

    def serve(connection, _):
        with tls.wrap_socket(connection, server_side=True) as secure:
            heard.append(hear(secure))
            secure.sendall(answer(200))

    tls = server_side(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Wire(serve) as wire:
        monkeypatch.setenv("UNIPILE_DSN", f"localhost:{wire.port}")
        assert call(puffle_unipile, account(**UNIPILE.id)).said == "session revoked"
    head = heard[0].decode()
    assert head.startswith(f"DELETE /api/v1/accounts/{QUOTED} HTTP/1.1\r\n")
    assert f"Host: localhost:{wire.port}\r\n" in head


@each_provider
def test_the_check_asks_something_harmless_with_the_key(provider, http):
    http.answer(200, {"items": []})
    assert check(provider.plugin) is None
    (sent,) = http.requests
    assert (sent.method, sent.path, sent.body) == ("GET", provider.collection, b"")
    assert sent.headers[provider.header[0]] == provider.header[1]


@each_provider
@pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 429, 500])
def test_the_check_fails_for_whatever_is_no_success(provider, status, http):
    http.answer(status, provider.gone[0])
    assert check(provider.plugin).startswith(f"{provider}: credentials check: {status}")


# What an answer means


@each_provider
@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize("body", [None, b"OK", {"code": "not_found"}, []])
def test_any_2xx_is_done_whatever_its_body(provider, status, body, http):
    result = tear_down(provider, http, status=status, body=None if status == 204 else body)
    assert (result.said, result.failure) == (provider.done, None)


@pytest.mark.parametrize(
    ("provider", "body"),
    [(provider, body) for provider in PROVIDERS for body in provider.gone],
    ids=str,
)
@pytest.mark.parametrize("status", [404, 410])
def test_the_providers_own_404_or_410_is_a_success_that_says_it_was_not_there(
    provider, body, status, http
):
    result = tear_down(provider, http, status=status, body=body)
    assert (result.said, result.failure) == (provider.absent, None)


LOOK_ALIKES = [
    HTML,
    None,
    [],
    {},
    b"null",
    b'"not_found"',
    b"404",
    b"{",
    {"detail": "Not Found"},
    {"message": "Not Found"},
    {"status": 404, "title": "Not Found", "type": "about:blank"},
    {"statusCode": 404, "error": "Not Found", "message": "Route DELETE:/accounts/x not found"},
    {"statusCode": 404, "error": "Not Found", "message": "Workspace not found"},
    {"statusCode": 404, "error": "Not Found"},
    {"statusCode": 404, "error": "Not Found", "message": None},
    {"statusCode": 404, "message": "Resource not found"},
    {"error": "Not Found", "message": "Resource not found"},
    {"code": "NOT_FOUND", "message": "The page could not be found"},
    {"code": {"not_found": True}},
    {"object": "Error", "type": "errors/no_client_session", "status": 404},
    {"object": "Account", "type": "api/resource_not_found", "status": 404},
    {"type": "errors/resource_not_found_either", "status": 404},
    [{"code": "not_found"}],
    {"error": {"code": "not_found"}},
]


@each_provider
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("body", LOOK_ALIKES, ids=lambda body: str(body)[:60])
def test_any_other_404_or_410_is_a_wrong_url_and_permanent(provider, body, status, http):
    result = tear_down(provider, http, status=status, body=body)
    assert (result.said, result.permanent) == (None, True)
    assert result.failure.startswith(f"{provider}: {provider.what}: {status}")
    assert f"{provider.variable}_BASE_URL" in result.failure


@pytest.mark.parametrize(
    ("provider", "body"),
    [(p, body) for p in PROVIDERS for other in PROVIDERS if other is not p for body in other.gone],
    ids=str,
)
def test_another_providers_404_is_a_wrong_url_and_permanent(provider, body, http):
    result = tear_down(provider, http, status=404, body=body)
    assert (result.said, result.permanent) == (None, True)


@each_provider
@pytest.mark.parametrize("status", [400, 403, 409, 500])
def test_the_words_of_a_404_under_another_status_are_no_success(provider, status, http):
    result = tear_down(provider, http, status=status, body=provider.gone[0])
    assert result.failure.startswith(f"{provider}: {provider.what}: {status}")


@each_provider
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_permanent_and_nothing_arrives_where_it_points(provider, status, http):
    with FakeProvider() as elsewhere:
        result = tear_down(provider, http, status=status, Location=elsewhere.url + "/login")
        assert elsewhere.requests == []
    assert result.permanent
    assert f"{provider.variable}_BASE_URL" in result.failure
    assert len(deletes(http)) == 1


@each_provider
@pytest.mark.parametrize("status", [400, 401, 402, 403, 422])
@pytest.mark.parametrize("body", [None, HTML, {"code": "x", "type": "x", "message": "secret"}])
def test_a_refusal_is_permanent(provider, status, body, http):
    result = tear_down(provider, http, status=status, body=body)
    assert (result.said, result.permanent) == (None, True)
    assert result.failure.startswith(f"{provider}: {provider.what}: {status}")
    assert "secret" not in result.failure


@each_provider
def test_a_refused_key_is_told_by_its_variable(provider, http):
    result = tear_down(provider, http, status=401)
    assert f"{provider.variable}_API_KEY" in result.failure


@each_provider
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 501, 502, 503, 504, 520, 599])
def test_what_passes_is_to_be_tried_again_after_the_providers_retry_after(provider, status, http):
    result = tear_down(provider, http, status=status, Retry_After="77")
    assert (result.said, result.permanent, result.retry_after) == (None, False, 77)
    assert result.failure.startswith(f"{provider}: {provider.what}: {status}")
    assert len(deletes(http)) == 1


@each_provider
def test_no_connection_is_to_be_tried_again(provider, monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(f"{provider.variable}_BASE_URL", base)
        result = call(provider.plugin, account(**provider.id))
    assert (result.said, result.permanent) == (None, False)
    assert result.failure.startswith(f"{provider}: {provider.what}: no connection")


@each_provider
def test_a_time_out_is_to_be_tried_again(provider, http):
    result = tear_down(provider, http, seconds=1, status=200, delay=60)
    assert (result.said, result.permanent) == (None, False)
    assert result.failure.startswith(f"{provider}: {provider.what}: no answer within")


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (403, "resource_deleting", False),
        (403, "cannot_delete", False),
        (403, "missing_permission", True),
        (403, "forbidden", True),
        (403, "brand_new_code", True),
        (401, "unknown_api_key", True),
        (409, "race_condition", False),
        (429, "rate_limit_exceeded", False),
        (500, "internal_error", False),
        (400, "not_found", True),
    ],
)
def test_agentmails_codes_are_told_and_decide(status, code, permanent, http):
    body = {"name": "AnError", "code": code, "message": "secret", "fix": "secret"}
    result = tear_down(AGENTMAIL, http, status=status, body=body)
    assert result.permanent is permanent
    assert result.failure.startswith(f"AgentMail: inbox delete: {status} {code}")
    assert "secret" not in result.failure


@pytest.mark.parametrize(
    ("status", "kind", "permanent"),
    [
        (400, "errors/invalid_parameters", True),
        (401, "errors/missing_credentials", True),
        (500, "errors/unexpected_error", False),
        (503, "errors/no_client_session", False),
        (503, "errors/network_down", False),
        (504, "errors/request_timeout", False),
        (429, "api/too_many_requests", False),
    ],
)
def test_unipiles_types_are_told(status, kind, permanent, http):
    body = {"title": "secret", "type": kind, "status": status, "detail": "secret"}
    result = tear_down(UNIPILE, http, status=status, body=body)
    assert result.permanent is permanent
    assert result.failure.startswith(f"Unipile: session revoke: {status} {kind}")
    assert "secret" not in result.failure


# Instantly: whatever becomes of the disable, the delete is tried


def disable_then_delete(http, delete=200, seconds=10.0, **disable):
    http.answer(**disable).answer(delete)
    result = call(puffle_instantly, account(email_address="a@b.co"), seconds)
    assert [sent.method for sent in http.requests] == ["POST", "DELETE"]
    return result


@pytest.mark.parametrize("status", [302, 400, 401, 402, 404, 422, 429, 500, 503])
def test_a_refused_disable_does_not_keep_the_delete_from_being_done(status, http):
    result = disable_then_delete(http, status=status, Retry_After="600")
    assert result.failure is None
    assert result.said.startswith(f"warm-up not disabled (Instantly: warm-up disable: {status}")
    assert result.said.endswith("), account deleted")


def test_a_warm_up_that_is_not_there_is_not_told_as_disabled(http):
    result = disable_then_delete(http, status=404, body=INSTANTLY.gone[0])
    assert result.said == "warm-up was not there, account deleted"


def test_a_disable_that_hangs_leaves_the_delete_its_time(http):
    result = disable_then_delete(http, seconds=2.1, status=200, delay=60)
    assert result.said == (
        "warm-up not disabled (Instantly: warm-up disable: no answer within 0.8 s), account deleted"
    )


def test_a_disable_whose_answer_drips_leaves_the_delete_its_time(monkeypatch):
    heard = []

    def serve(connection, _):
        heard.append(hear(connection)[:4])
        if heard[-1] == b"POST":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                time.sleep(0.4)
                connection.sendall(b"x")
        connection.sendall(answer(200))

    with Wire(serve) as wire:
        monkeypatch.setenv("INSTANTLY_BASE_URL", wire.url)
        result = call(puffle_instantly, account(email_address="a@b.co"), seconds=2)
    assert heard == [b"POST", b"DELE"]
    assert result.said.endswith("account deleted")


def test_a_disable_whose_connection_breaks_leaves_the_delete(monkeypatch):
    heard = []

    def serve(connection, number):
        heard.append(hear(connection)[:4])
        if number > 1:
            connection.sendall(answer(200))

    with Wire(serve) as wire:
        monkeypatch.setenv("INSTANTLY_BASE_URL", wire.url)
        result = call(puffle_instantly, account(email_address="a@b.co"))
    assert heard == [b"POST", b"DELE"]
    assert result.said.endswith("account deleted")


@pytest.mark.parametrize("disable", [200, 500])
def test_the_failure_of_the_delete_is_what_counts(disable, http):
    result = disable_then_delete(http, status=disable, delete=503)
    assert (result.said, result.permanent) == (None, False)
    assert result.failure.startswith("Instantly: account delete: 503")


# Configuration


@each_provider
def test_without_its_key_it_is_a_permanent_failure_that_names_the_variable(
    provider, http, monkeypatch
):
    monkeypatch.delenv(f"{provider.variable}_API_KEY")
    result = call(provider.plugin, account(**provider.id))
    assert result.permanent
    assert f"{provider.variable}_API_KEY is not set" in result.failure
    assert f"{provider.variable}_API_KEY is not set" in check(provider.plugin)
    assert http.requests == []


def test_without_a_dsn_unipile_is_a_permanent_failure_that_names_it():
    result = call(puffle_unipile, account(**UNIPILE.id))
    assert result.permanent
    assert "UNIPILE_DSN is not set" in result.failure


@pytest.mark.parametrize(
    ("provider", "host"),
    [(INSTANTLY, "api.instantly.ai"), (AGENTMAIL, "api.agentmail.to")],
    ids=str,
)
def test_without_a_base_url_the_providers_own_host_is_asked_by_tls(provider, host, monkeypatch):
    heard = []
    with Wire(lambda connection, _: heard.append(hear(connection))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert not call(provider.plugin, account(**provider.id)).permanent
    assert heard[0].startswith(f"CONNECT {host}:443 HTTP/1.".encode())
    assert KEY.encode() not in b"".join(heard)
