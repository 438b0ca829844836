from __future__ import annotations

from collections.abc import Callable

import puffle_smartlead
import pytest

from puffle_accounts.testing import (
    FakeProvider,
    PluginConformance,
    Reply,
    Result,
    account,
    check,
    holdings,
)

MAILBOX = account(metadata={"smartlead_email_account_id": 123})
DELETED = {"ok": True, "message": "Email account deleted successfully!", "emailAccountId": 123}


def error(code: str, **more: object) -> dict[str, object]:
    return {"error": {"code": code, "message": "in words", **more}}


class TestSmartlead(PluginConformance):
    plugin = puffle_smartlead
    theirs = MAILBOX
    not_theirs = (
        account(email_address="ada@outreach.example", instantly_account_id="123"),
        account(type="linkedin", metadata={"smartlead_email_account_id": 123}),
    )
    key_variable = "SMARTLEAD_API_KEY"
    done = Reply(200, DELETED)
    gone = Reply(404, error("NOT_FOUND"))
    pages = (
        Reply(200, [{"id": 123, "from_email": "ada@outreach.example"}, {"id": 124}]),
        Reply(200, [{"id": 125, "created_at": "2026-01-15T10:30:00.000Z"}]),
        Reply(200, []),
    )
    listed = ("123", "124", "125")
    temporary = (Reply(429, error("RATE_LIMIT_EXCEEDED")), Reply(409, error("CONFLICT")))
    permanent = (Reply(403, error("FORBIDDEN")), Reply(404, error("ROUTE_NOT_FOUND")))


def test_the_account_is_deleted_with_the_key_in_the_query(
    teardown: Callable[..., Result], fake_provider: FakeProvider
) -> None:
    fake_provider.answer(200, DELETED)
    assert teardown(puffle_smartlead, MAILBOX).said == "account deleted"
    (request,) = fake_provider.requests
    path, _, query = request.path.partition("?")
    assert (request.method, path, request.body) == ("DELETE", "/email-accounts/123", b"")
    assert query.startswith("api_key=")


def test_the_body_says_how_long_to_wait_and_the_code_says_why(
    teardown: Callable[..., Result], fake_provider: FakeProvider
) -> None:
    fake_provider.answer(429, error("RATE_LIMIT_EXCEEDED", retry_after=30))
    result = teardown(puffle_smartlead, MAILBOX)
    assert result.failure == "Smartlead: account delete: 429 RATE_LIMIT_EXCEEDED"
    assert (result.retry_after, result.permanent) == (30, False)


def test_an_account_that_is_gone_is_not_told_as_deleted(
    teardown: Callable[..., Result], fake_provider: FakeProvider
) -> None:
    fake_provider.answer(404, error("NOT_FOUND"))
    assert teardown(puffle_smartlead, MAILBOX).said == "account was not there"


def test_the_list_is_asked_for_by_offset(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTLEAD_API_KEY", "the-key")
    monkeypatch.setenv("SMARTLEAD_BASE_URL", fake_provider.url)
    fake_provider.reply(*TestSmartlead.pages)
    found = list(holdings(puffle_smartlead))
    asked = [request.path.partition("&api_key=")[0] for request in fake_provider.requests]
    assert asked == [f"/email-accounts?limit=100{more}" for more in ("", "&offset=2", "&offset=3")]
    assert found[0].name == "ada@outreach.example"
    assert f"{found[2].created_at:%Y-%m-%d}" == "2026-01-15"
    assert check(puffle_smartlead) is None
    assert fake_provider.requests[-1].path.startswith("/email-accounts?limit=1&")
