"""The HTTP client at published APIs of different make: each answers as its reference says."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from wire import KEY, deadline

from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.testing import FakeProvider
from puffle_accounts.upstream import Upstream, basic, in_query


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """No proxy of whoever runs the tests stands in between."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def fake():
    with FakeProvider() as fake:
        yield fake


def client(name: str, fake: FakeProvider, path: str, **how) -> Upstream:
    """Return a client that knows its key and thinks that the fake is the provider."""
    made = Upstream(name, key_variable="KEY", base_url_variable="URL", base_url="", **how)
    made.configure({"KEY": KEY, "URL": fake.url + path})
    return made


def refused(call, *args, **how) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        call(*args, **how, tried="it")
    return caught.value


def test_smartlead_has_its_key_in_the_query_and_nests_its_codes(fake):
    """api.smartlead.ai: "Delete Email Account", "Get All Email Accounts", "Rate Limits"."""
    smartlead = client(
        "Smartlead",
        fake,
        "/api/v1",
        authenticate=in_query("api_key"),
        code="error.code",
        is_gone=lambda body: body.get("error", {}).get("code") == "NOT_FOUND",
        retry_after="error.retry_after",
    )
    slow = {"error": {"code": "RATE_LIMIT_EXCEEDED", "message": KEY, "retry_after": 30}}
    fake.answer(200, {"ok": True, "emailAccountId": 123}).answer(429, slow)
    fake.answer(429, X_RateLimit_Reset=str(int(time.time()) + 60))
    assert smartlead.delete("email-accounts", "123", tried="account delete") is True
    told = refused(smartlead.delete, "email-accounts", "123")
    assert str(told) == "Smartlead: it: 429 RATE_LIMIT_EXCEEDED"
    assert (told.status, told.permanent, told.retry_after) == (429, False, 30)
    assert 50 < refused(smartlead.delete, "email-accounts", "123").retry_after <= 60
    assert fake.requests[0].path == f"/api/v1/email-accounts/123?api_key={KEY}"

    fake.answer(200, [{"id": 1}, {"id": 2}]).answer(200, [{"id": 3}]).answer(200, [])
    listed = smartlead.pages(
        "email-accounts", items=None, offset_param="offset", limit=2, tried="account list"
    )
    assert [item["id"] for item in listed] == [1, 2, 3]
    asked = [request.path.partition("?")[2] for request in fake.requests[3:]]
    assert asked == [
        f"limit=2&api_key={KEY}",
        f"limit=2&offset=2&api_key={KEY}",
        f"limit=2&offset=3&api_key={KEY}",
    ]


def test_hubspot_names_the_next_page_deep_inside_and_its_limits_otherwise_than_its_errors(fake):
    """developers.hubspot.com: "Archive a contact", "API usage guidelines", "Error handling"."""
    hubspot = client(
        "HubSpot",
        fake,
        "",
        authenticate=lambda key: {"Authorization": f"Bearer {key}"},
        code=lambda body: body.get("category") or body["errorType"],
        is_gone=lambda body: body.get("category") == "OBJECT_NOT_FOUND",
    )
    limit = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "SECONDLY"}
    fake.answer(204).answer(429, limit).answer(400, {"status": "error"})
    fake.answer(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
    contact = ("crm", "v3", "objects", "contacts", "51")
    assert hubspot.delete(*contact, tried="contact archive") is True
    assert str(refused(hubspot.delete, *contact)) == "HubSpot: it: 429 RATE_LIMIT"
    assert str(refused(hubspot.delete, *contact)) == "HubSpot: it: 400"
    payload = {"properties": {"hs_lead_status": "UNQUALIFIED"}}
    assert hubspot.patch(*contact, payload=payload, tried="contact update") is False
    assert fake.requests[3].method == "PATCH"

    more = {"next": {"after": "MTA=", "link": "?after=MTA%3D"}}
    fake.answer(200, {"results": [{"id": "1"}], "paging": more}).answer(200, {"results": []})
    found = hubspot.pages(
        *contact[:-1],
        items="results",
        cursor="paging.next.after",
        cursor_param="after",
        limit=100,
        params={"archived": "false"},
        tried="contact list",
    )
    assert [item["id"] for item in found] == ["1"]
    assert fake.requests[-1].path.endswith("/contacts?limit=100&archived=false&after=MTA%3D")


def test_slack_says_in_the_body_of_a_200_that_it_failed(fake):
    """docs.slack.dev: "conversations.archive", "Rate limits", "Pagination"."""
    slack = client(
        "Slack",
        fake,
        "/api",
        authenticate=lambda key: {"Authorization": f"Bearer {key}"},
        code="error",
        is_done=lambda body: body.get("ok") is True,
        is_gone=lambda body: body.get("error") == "already_archived",
        temporary_codes=frozenset({"internal_error", "fatal_error", "service_unavailable"}),
    )
    fake.answer(200, {"ok": True}).answer(200, {"ok": False, "error": "already_archived"})
    for code in ("not_authed", "fatal_error"):
        fake.answer(200, {"ok": False, "error": code})
    fake.answer(429, {"ok": False, "error": "ratelimited"}, Retry_After="30").answer(200)
    archive = {"payload": {"channel": "C1"}, "tried": "it"}
    assert slack.post("conversations.archive", **archive) is True
    assert slack.post("conversations.archive", **archive) is False
    failures = [refused(slack.post, "conversations.archive", payload={}) for _ in range(4)]
    assert [(each.status, each.permanent, each.retry_after) for each in failures] == [
        (200, True, None),
        (200, False, None),
        (429, False, 30),
        (200, False, None),  # no body, so nobody said that it is done
    ]
    assert str(failures[0]) == "Slack: it: 200 not_authed"

    last = {"ok": True, "channels": [{"id": "C2"}], "response_metadata": {"next_cursor": ""}}
    first = {**last, "channels": [{"id": "C1"}], "response_metadata": {"next_cursor": "dXNlcg=="}}
    fake.answer(200, first).answer(200, last).answer(200, {"ok": False, "error": "not_authed"})
    how = {"items": "channels", "cursor": "response_metadata.next_cursor"}
    how |= {"cursor_param": "cursor", "limit": 200, "tried": "it"}
    assert [each["id"] for each in slack.pages("conversations.list", **how)] == ["C1", "C2"]
    with pytest.raises(UpstreamFailed, match="200 not_authed"):
        list(slack.pages("conversations.list", **how))


def test_mailgun_takes_basic_authentication_and_counts_its_pages(fake):
    """documentation.mailgun.com: "Authentication", "Domains"."""
    mailgun = client(
        "Mailgun",
        fake,
        "",
        authenticate=basic("api"),
        code=lambda body: None,
        is_gone=lambda body: body.get("message") == "Domain not found",
    )
    fake.answer(200, {"message": "Domain will be deleted in the background"})
    fake.answer(404, {"message": "Domain not found"})
    fake.answer(200, {"message": "Domain has been updated"})
    assert mailgun.delete("v3", "domains", "mail.example", tried="domain delete") is True
    assert mailgun.delete("v3", "domains", "mail.example", tried="domain delete") is False
    state = {"params": {"web_scheme": "https"}, "payload": None}
    assert mailgun.put("v4", "domains", "mail.example", **state, tried="domain update") is True
    assert (fake.requests[2].method, fake.requests[2].headers["Content-Length"]) == ("PUT", "0")
    assert fake.requests[2].path == "/v4/domains/mail.example?web_scheme=https"
    told = b64encode(f"api:{KEY}".encode()).decode()
    assert {each.headers["Authorization"] for each in fake.requests} == {f"Basic {told}"}

    fake.answer(200, {"total_count": 2, "items": [{"name": "a.example"}, {"name": "b.example"}]})
    fake.answer(200, {"total_count": 2, "items": []})
    how = {"items": "items", "offset_param": "skip", "limit": 1000, "tried": "domain list"}
    listed = mailgun.pages("v4", "domains", **how)
    assert [item["name"] for item in listed] == ["a.example", "b.example"]
    fake.answer(200, {"items": [{"name": "a.example"}]})
    with deadline(5), pytest.raises(UpstreamFailed, match="the same page again"):
        list(mailgun.pages("v4", "domains", **how))
