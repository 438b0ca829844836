"""Unipile's plugin: the kit's proof, and what is Unipile's alone."""

from __future__ import annotations

import puffle_unipile
import pytest
from wire import Wire, answer, hear, server_side

from puffle_accounts import Resource, TeardownFailed
from puffle_accounts.testing import PluginConformance, Reply, account, call, check, holdings

SESSION = account(type="linkedin", provider_account_id="acc-1")
V1 = {"title": "Not found", "type": "errors/resource_not_found", "status": 404}
V2 = {"object": "Error", "type": "api/resource_not_found", "status": 404, "title": "x"}


def item(id, type="LINKEDIN"):
    return {"object": "Account", "id": id, "type": type, "name": "Ada", "created_at": "2026-01-02"}


class TestUnipile(PluginConformance):
    plugin = puffle_unipile
    theirs = SESSION
    not_theirs = (
        account(provider_account_id="acc-1"),
        account(type="linkedin", email_address="a@b.co", instantly_account_id="a@b.co"),
    )
    key_variable = "UNIPILE_API_KEY"
    done = Reply(200, {"object": "AccountDeleted"})
    gone = (Reply(404, V1), Reply(404, V2), Reply(410, V1))
    pages = (
        Reply(200, {"items": [item("acc-1"), item("mail", "GOOGLE_OAUTH")], "cursor": "c/1"}),
        Reply(200, {"items": [item("acc-2")], "next_cursor": "c-2"}),
        Reply(200, {"items": [item("acc-3")], "cursor": None}),
    )
    listed = ("acc-1", "acc-2", "acc-3")
    temporary = (
        Reply(503, {"type": "errors/no_client_session"}),
        Reply(504, {"type": "errors/request_timeout"}),
    )
    permanent = (
        Reply(404, {"object": "Error", "type": "errors/no_client_session", "status": 404}),
        Reply(404, {"object": "Account", "type": "api/resource_not_found", "status": 404}),
        Reply(404, {"type": "errors/resource_not_found_either", "status": 404}),
    )


@pytest.mark.parametrize("base", ["/v2", "/api/v1/"])
def test_the_session_is_revoked_below_either_versions_base_url(
    base, teardown, fake_provider, monkeypatch
):
    monkeypatch.setenv("UNIPILE_API_KEY", "the-key")
    monkeypatch.setenv("UNIPILE_DSN", "api8.unipile.com:13851")  # the base URL wins
    monkeypatch.setenv("UNIPILE_BASE_URL", fake_provider.url + base)
    assert teardown(puffle_unipile, SESSION).said == "session revoked"
    (sent,) = fake_provider.requests
    assert (sent.method, sent.path) == ("DELETE", f"{base.rstrip('/')}/accounts/acc-1")
    assert (sent.headers["X-API-KEY"], sent.body) == ("the-key", b"")
    assert "Content-Type" not in sent.headers


def test_a_session_that_is_gone_is_not_told_as_revoked(teardown, fake_provider):
    fake_provider.answer(404, V1)
    assert teardown(puffle_unipile, SESSION).said == "session was not there"


@pytest.mark.parametrize("kind", ["errors/missing_credentials", "errors/no_client_session"])
def test_its_type_tells_what_is_wrong(kind, teardown, fake_provider):
    fake_provider.answer(401, {"title": "secret", "type": kind, "status": 401, "detail": "secret"})
    failure = teardown(puffle_unipile, SESSION).failure
    assert failure == f"Unipile: session revoke: 401 {kind} (check UNIPILE_API_KEY)"


def test_its_list_and_its_check_ask_page_by_page_and_tell_what_is_wrong(fake_provider, monkeypatch):
    monkeypatch.setenv("UNIPILE_API_KEY", "the-key")
    monkeypatch.setenv("UNIPILE_BASE_URL", fake_provider.url)
    fake_provider.reply(*TestUnipile.pages)
    found = list(holdings(puffle_unipile))
    assert [sent.path for sent in fake_provider.requests] == [
        "/accounts?limit=250",
        "/accounts?limit=250&cursor=c%2F1",
        "/accounts?limit=250&cursor=c-2",
    ]
    assert check(puffle_unipile) is None
    assert fake_provider.requests[-1].path == "/accounts?limit=1"
    fake_provider.answer(401)
    assert check(puffle_unipile) == "Unipile: credentials check: 401 (check UNIPILE_API_KEY)"
    with pytest.raises(TeardownFailed, match="Unipile: session list: 401"):
        list(holdings(puffle_unipile))
    assert isinstance(found[0], Resource)
    assert (found[0].name, f"{found[0].created_at:%Y-%m-%d}") == ("Ada", "2026-01-02")


def test_it_is_asked_at_its_dsn_by_tls_and_v1(certificate, monkeypatch):
    heard = []

    def serve(connection, _):
        with tls.wrap_socket(connection, server_side=True) as secure:
            heard.append(hear(secure))
            secure.sendall(answer(200))

    tls = server_side(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("UNIPILE_API_KEY", "the-key")
    with Wire(serve) as wire:
        monkeypatch.setenv("UNIPILE_DSN", f"localhost:{wire.port}")
        assert call(puffle_unipile, SESSION).said == "session revoked"
    head = heard[0].decode()
    assert head.startswith("DELETE /api/v1/accounts/acc-1 HTTP/1.1\r\n")
    assert f"Host: localhost:{wire.port}\r\n" in head


def test_without_a_dsn_it_is_a_permanent_failure_that_names_it(monkeypatch):
    monkeypatch.setenv("UNIPILE_API_KEY", "the-key")
    result = call(puffle_unipile, SESSION)
    assert result.permanent
    assert "UNIPILE_DSN is not set" in result.failure
