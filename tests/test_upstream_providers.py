"""The HTTP client at published APIs of different make: each answers as its reference says."""

from __future__ import annotations

import time
from base64 import b64encode
from contextvars import Context
from multiprocessing.pool import ThreadPool
from urllib.parse import parse_qsl

import pytest
from wire import KEY, deadline

from puffle_accounts import context
from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.testing import FakeProvider
from puffle_accounts.upstream import (
    ClientCredentials,
    Upstream,
    basic,
    in_query,
    request_id,
    seconds_left,
)


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
    fake.answer(429, {"error": {"retry_after": 10**400}})
    assert refused(smartlead.delete, "email-accounts", "123").retry_after is None, "no float"
    assert fake.requests[0].path == f"/api/v1/email-accounts/123?api_key={KEY}"

    fake.answer(200, [{"id": 1}, {"id": 2}]).answer(200, [{"id": 3}]).answer(200, [])
    listed = smartlead.pages(
        "email-accounts", items=None, offset_param="offset", limit=2, tried="account list"
    )
    assert [item["id"] for item in listed] == [1, 2, 3]
    asked = [request.path.partition("?")[2] for request in fake.requests[4:]]
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
        is_done=lambda body: body["ok"] is True,
        is_gone=lambda body: body["error"] == "already_archived",
        temporary_codes=frozenset({"internal_error", "fatal_error", "service_unavailable"}),
    )
    long = {"messages": ["x" * 9000], "ok": True}
    fake.answer(200, long).answer(200, {"ok": False, "error": "already_archived"})
    for code in ("not_authed", "fatal_error"):
        fake.answer(200, {"ok": False, "error": code})
    fake.answer(429, {"ok": False, "error": "ratelimited"}, Retry_After="30").answer(200)
    fake.answer(200, {"warning": "neither yes nor no"})
    archive = {"payload": {"channel": "C1"}, "tried": "it"}
    assert slack.post("conversations.archive", **archive) is True
    assert slack.post("conversations.archive", **archive) is False
    failures = [refused(slack.post, "conversations.archive", payload={}) for _ in range(5)]
    assert [(each.status, each.permanent, each.retry_after) for each in failures] == [
        (200, True, None),
        (200, False, None),
        (429, False, 30),
        (200, False, None),  # no body, so nobody said that it is done
        (200, True, None),
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


GRAPH_GONE = {"error": {"code": "Request_ResourceNotFound", "message": "does not exist"}}


@pytest.fixture
def entra():
    """The token endpoint: it gives the tokens token-1 and token-2, in turn."""
    with FakeProvider() as entra:
        for number in (1, 2):
            granted = {
                "token_type": "Bearer",
                "expires_in": 3599,
                "access_token": f"token-{number}",
            }
            entra.answer(200, granted)
        yield entra


def graph_client(fake: FakeProvider, entra: FakeProvider, **environ: str) -> Upstream:
    graph = Upstream(
        "Graph",
        key_variable="GRAPH_CLIENT_SECRET",
        base_url_variable="GRAPH_BASE_URL",
        base_url="https://graph.microsoft.com/v1.0",
        authenticate=ClientCredentials(
            client_id_variable="GRAPH_CLIENT_ID",
            token_url_variable="GRAPH_TOKEN_URL",
            token_url=f"{entra.url}/{{GRAPH_TENANT}}/token?v=2",
            scope="https://graph.microsoft.com/.default",
        ),
        code="error.code",
        is_gone=lambda body: body == GRAPH_GONE,
    )
    known = {"GRAPH_CLIENT_SECRET": KEY, "GRAPH_BASE_URL": f"{fake.url}/v1.0"}
    known |= {"GRAPH_CLIENT_ID": "an id", "GRAPH_TENANT": "puffle.example"}
    graph.configure({**known, **environ})
    return graph


@pytest.fixture
def graph(fake, entra):
    return graph_client(fake, entra)


def tokens_of(fake: FakeProvider) -> list[str]:
    return [request.headers["Authorization"] for request in fake.requests]


def test_microsoft_graph_wants_a_token_that_is_fetched_first_and_again_once_it_is_refused(
    graph, fake, entra
):
    """learn.microsoft.com: "OAuth 2.0 client credentials flow", "Delete a user", "Paging"."""
    fake.answer(204).answer(404, GRAPH_GONE)
    fake.answer(401, {"error": {"code": "InvalidAuthenticationToken"}}).answer(204)
    user = ("users", "ada@puffle.example")
    assert graph.delete(*user, tried="user delete") is True
    assert graph.delete(*user, tried="user delete") is False
    blocked = {"accountEnabled": False}
    assert graph.patch(*user, payload=blocked, tried="user block") is True
    assert tokens_of(fake) == ["Bearer token-1"] * 3 + ["Bearer token-2"]
    assert [request.body for request in fake.requests[2:]] == [b'{"accountEnabled": false}'] * 2
    asked = entra.requests[0]
    assert (asked.method, asked.path) == ("POST", "/puffle.example/token?v=2")
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(asked.body.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "an id",
        "client_secret": KEY,
        "scope": "https://graph.microsoft.com/.default",
    }

    link = f"{fake.url}/v1.0/users?$top=999&$filter=&$skiptoken=RFN%2Babc"
    fake.answer(200, {"value": [], "@odata.nextLink": link}).answer(200, {"value": [{"id": "7"}]})
    found = graph.pages(
        "users",
        items="value",
        next_url="@odata.nextLink",
        limit=999,
        limit_param="$top",
        tried="user list",
    )
    assert [each["id"] for each in found] == ["7"]
    assert fake.requests[-1].path == "/v1.0/users?%24top=999&%24filter=&%24skiptoken=RFN%2Babc"


def test_only_a_refused_token_is_fetched_again(graph, fake, entra):
    fake.answer(403, {"error": {"code": "Authorization_RequestDenied"}})
    assert refused(graph.delete, "users", "7").status == 403
    assert (len(fake.requests), len(entra.requests)) == (1, 1)


def test_a_token_that_is_refused_twice_is_a_refused_key(graph, fake, entra):
    fake.answer(401, {"error": {"code": "token-2"}})
    failed = refused(graph.delete, "users", "7")
    assert str(failed) == "Graph: it: 401 (check GRAPH_CLIENT_SECRET)", "the token is not echoed"
    assert (failed.status, failed.permanent) == (401, True)
    assert tokens_of(fake) == ["Bearer token-1", "Bearer token-2"]
    assert len(entra.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "permanent", "told"),
    [
        (401, {"error": "invalid_client"}, True, "401 invalid_client (check GRAPH_CLIENT_ID and"),
        (400, {"error": "invalid_scope"}, True, "400 invalid_scope"),
        (400, {"error": "temporarily_unavailable"}, False, "400 temporarily_unavailable"),
        (404, {}, True, "check GRAPH_TOKEN_URL"),
        (302, None, True, "redirects are not followed; check GRAPH_TOKEN_URL"),
        (429, {"error": "slow_down"}, False, "429 slow_down"),
        (503, None, False, "503"),
        (200, b"<html>Log in", False, "a web page (check GRAPH_TOKEN_URL)"),
        (200, {"token_type": "Bearer"}, True, "200"),
        (200, {"access_token": "a\r\nb"}, True, "200"),
        (200, {"access_token": None}, True, "200"),
        (200, b"", False, "200"),
    ],
)
def test_a_token_that_is_not_given_says_why_and_nothing_else_is_asked(
    fake, status, body, permanent, told
):
    with FakeProvider() as entra:
        entra.answer(status, body, Retry_After="7")
        failed = refused(graph_client(fake, entra).delete, "users", "7")
    assert str(failed).startswith("Graph: token for it: ")
    assert told in str(failed)
    assert failed.permanent == permanent
    assert failed.retry_after == (None if "web page" in told else 7)
    assert KEY not in str(failed)
    assert fake.requests == []


def test_a_token_endpoint_that_hangs_ends_by_the_calls_clock(fake):
    """Whoever waits for another's token waits no longer than its own call may take."""

    def delete(seconds):
        with deadline(seconds):
            return str(refused(graph.delete, "users", "7"))

    with FakeProvider() as entra:
        entra.answer(200, {"access_token": "token-1"}, delay=30)
        graph = graph_client(fake, entra)
        first = ThreadPool(1).apply_async(delete, (1,))
        while not entra.requests:
            time.sleep(0.01)
        assert delete(0.2) == "Graph: token for it: none within 0.2 s"
        assert not first.ready()
        assert first.get() == "Graph: token for it: no answer within 0.9 s"


def test_threads_that_need_a_token_at_the_same_time_fetch_one(graph, fake, entra):
    fake.answer(204)
    done = ThreadPool(8).map(lambda _: graph.delete("users", "7", tried="it"), range(16))
    assert done == [True] * 16
    assert len(entra.requests) == 1


@pytest.mark.parametrize(
    ("unset", "missing"),
    [
        (("GRAPH_CLIENT_ID",), "GRAPH_CLIENT_ID"),
        (("GRAPH_TENANT",), "GRAPH_TENANT"),
        (("GRAPH_CLIENT_SECRET", "GRAPH_CLIENT_ID"), "GRAPH_CLIENT_SECRET, GRAPH_CLIENT_ID"),
    ],
)
def test_what_a_token_needs_and_is_not_set_is_named(fake, entra, unset, missing):
    graph = graph_client(fake, entra, **dict.fromkeys(unset, ""))
    assert graph.missing == missing
    assert {*unset, *missing.split(", ")} <= set(graph.variables)
    failed = refused(graph.delete, "users", "7")
    assert (str(failed), failed.permanent) == (f"Graph: it: {missing} is not set", True)


@pytest.mark.parametrize(
    "link",
    ["https://elsewhere.example/v1.0/users?a=1", "/v2/users?a=1", "//elsewhere.example/v1.0/"],
)
def test_no_key_goes_where_a_link_leads_that_is_not_the_providers(graph, fake, link):
    fake.answer(200, {"value": [{"id": "7"}], "@odata.nextLink": link})
    how = {"items": "value", "next_url": "@odata.nextLink", "limit": 9, "tried": "it"}
    with pytest.raises(UpstreamFailed, match="a link to the next page that leads elsewhere"):
        list(graph.pages("users", **how))
    assert len(fake.requests) == 1


def test_who_has_a_client_of_their_own_is_told_the_time_that_is_left_and_the_requests_id():
    def of_a_call(seconds: float, name: str) -> tuple[float, str | None]:
        context.request_id.set(name)
        with deadline(seconds):
            return seconds_left(), request_id()

    assert Context().run(lambda: (seconds_left(), request_id())) == (9.5, None)
    left, name = Context().run(of_a_call, 400, "req-1")
    assert (300 < left <= 380, name) == (True, "req-1")
    assert Context().run(of_a_call, -1, "req-1")[0] == 0


@pytest.mark.parametrize(
    "way", [{}, {"cursor": "next"}, {"cursor_param": "at"}, {"offset_param": "o", "next_url": "n"}]
)
def test_a_list_without_one_way_to_its_next_page_is_a_mistake_not_a_short_list(graph, fake, way):
    fake.answer(200, {"value": []})
    with pytest.raises(TypeError, match="cursor and cursor_param, or offset_param, or next_url"):
        list(graph.pages("users", items="value", **way, limit=1, tried="user list"))
