"""The HTTP client for plugins: what it sends, what an answer means, and what it says of it."""

from __future__ import annotations

import gzip
import json
import traceback
from base64 import b64encode
from contextvars import Context
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import quote

import pytest
import requests
from support import free_port
from wire import KEY, Wire, answer, deadline, hear, upstream

from puffle_accounts import context
from puffle_accounts.errors import ConfigError, UpstreamFailed
from puffle_accounts.testing import FakeProvider
from puffle_accounts.transport import Transport
from puffle_accounts.upstream import Upstream, basic, in_query

GONE = {"code": "not_found"}
JSON_GONE = json.dumps(GONE).encode()
CHUNKED = b"HTTP/1.1 %d x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """No proxy of whoever runs the tests stands in between."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def provider():
    with FakeProvider() as fake:
        yield fake.answer(200)


def failure(client: Upstream, *segments: str) -> UpstreamFailed:
    """Return what a delete that has to fail raises."""
    with pytest.raises(UpstreamFailed) as caught:
        client.delete(*(segments or ("things", "t-1")), tried="thing delete")
    return caught.value


def failure_after(sent: bytes) -> UpstreamFailed:
    """Return what a delete raises after these bytes for an answer; then the connection ends."""
    with Wire(lambda c, _: hear(c) and c.sendall(sent)) as wire, deadline(5):
        return failure(upstream(wire.url))


# What is sent


def test_a_delete_has_the_key_the_request_id_and_neither_body_nor_content_type(provider):
    token = context.request_id.set("req-1")
    upstream(provider.url + "/v1").delete("things", "t-1", tried="thing delete")
    context.request_id.reset(token)
    (sent,) = provider.requests
    assert (sent.method, sent.path, sent.body) == ("DELETE", "/v1/things/t-1", b"")
    assert sent.headers["X-API-KEY"] == KEY
    assert sent.headers["X-Request-ID"] == "req-1"
    assert "content-type" not in {name.lower() for name in sent.headers}


def test_without_a_request_no_request_id_is_made_up(provider):
    client = upstream(provider.url)
    Context().run(client.delete, "things", "t-1", tried="thing delete")
    assert "X-Request-ID" not in provider.requests[0].headers


def test_a_post_sends_json(provider):
    upstream(provider.url).post("things", "stop", payload={"é": [1]}, tried="stop")
    (sent,) = provider.requests
    assert (sent.method, sent.path) == ("POST", "/things/stop")
    assert sent.headers["Content-Type"] == "application/json"
    assert json.loads(sent.body) == {"é": [1]}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_change_sends_json_and_its_query(provider, method):
    send = getattr(upstream(provider.url), method)
    assert send("things", payload={"on": False}, params={"all": "no"}, tried="change") is True
    (sent,) = provider.requests
    assert (sent.method, sent.path) == (method.upper(), "/things?all=no")
    assert json.loads(sent.body) == {"on": False}


def test_a_value_that_no_url_can_hold_is_refused_before_anything_is_sent(provider):
    with pytest.raises(UpstreamFailed, match="an id that cannot be part of a URL") as caught:
        upstream(provider.url).delete("things", params={"id": "\ud800"}, tried="thing delete")
    assert caught.value.permanent
    assert provider.requests == []


def test_a_get_sends_its_query(provider):
    upstream(provider.url).get("things", params={"limit": "1", "of": "a&b"}, tried="check")
    assert (provider.requests[0].method, provider.requests[0].path) == (
        "GET",
        "/things?limit=1&of=a%26b",
    )


@pytest.mark.parametrize(
    ("thing", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("a?all=true", "a%3Fall%3Dtrue"),
        ("a#b", "a%23b"),
        ("../webhooks", "..%2Fwebhooks"),
        ("/", "%2F"),
        ("?", "%3F"),
        ("...", "..."),
        ("a..b", "a..b"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("ada+tag@outreach.example", "ada%2Btag%40outreach.example"),
        ("a b;c", "a%20b%3Bc"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
        ("\x00", "%00"),
        ("~a-b_c.d", "~a-b_c.d"),
    ],
)
def test_an_id_stays_one_segment_of_the_path(provider, thing, segment):
    upstream(provider.url + "/v1").delete("things", thing, tried="thing delete")
    assert [sent.path for sent in provider.requests] == [f"/v1/things/{segment}"]


@pytest.mark.parametrize("thing", ["", ".", "..", "\ud800"])
def test_an_id_that_no_url_can_hold_is_refused_before_anything_is_sent(provider, thing):
    failed = failure(upstream(provider.url), "things", thing)
    assert failed.permanent
    assert str(failed) == "Example: thing delete: an id that cannot be part of a URL"
    assert provider.requests == []


def test_a_netrc_file_does_not_replace_the_key(provider, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(provider.url) == ("somebody", "else")  # it is in force
    client = upstream(provider.url, authenticate=lambda key: {"Authorization": f"Bearer {key}"})
    client.delete("things", "t-1", tried="thing delete")
    assert provider.requests[0].headers["Authorization"] == f"Bearer {KEY}"


# What an answer means


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_nothing_arrives_where_it_points(provider, status):
    with FakeProvider() as elsewhere:
        elsewhere.answer(200)
        with FakeProvider() as moved:
            moved.answer(status, Location=elsewhere.url + "/things/t-1")
            failed = failure(upstream(moved.url))
    assert (failed.status, failed.permanent) == (status, True)
    assert "redirect" in str(failed)
    assert "EXAMPLE_BASE_URL" in str(failed)
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [None, {"code": "not_found"}, [], b"OK", b"\xff{", b"<ok/>"])
def test_any_2xx_of_an_api_is_done_whatever_its_body(status, body):
    with FakeProvider() as provider:
        provider.answer(status, None if status == 204 else body)
        assert upstream(provider.url).delete("things", "t-1", tried="thing delete") is True


HTML_PAGE = b"\xef\xbb\xbf \n<!-- x --><!DOCTYPE html><title>Log in</title>"
AS_JSON = "Content-Type: application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (answer(200, b"Log in", "Content-Type: text/html"), "a web page"),
        (answer(200, HTML_PAGE), "a web page"),
        (answer(200, b"<html>", AS_JSON), "a web page"),
        (answer(200, gzip.compress(HTML_PAGE), "Content-Encoding: gzip"), "a web page"),
        (answer(200, b"??", "Content-Type: text/HTML", "Content-Encoding: br"), "a web page"),
        (answer(201, b"OK", AS_JSON), "a body that is no JSON"),
        (answer(200, b'{"a": ', AS_JSON), "a body that is no JSON"),
        (answer(200, b"x" * 9000, AS_JSON), "a body that is no JSON"),
        (answer(200, b"x", "Content-Type: application/hal+json"), "a body that is no JSON"),
        (b"HTTP/1.1 200 x\r\nContent-Type: text/html\r\n\r\n<p>", "a web page"),
        (CHUNKED % 200 + b"5\r\n<html\r\n1\r\n>\r\n0\r\n\r\n", "a web page"),
    ],
)
def test_a_success_that_no_api_sends_is_a_failure_to_be_tried_again(sent, words):
    failed = failure_after(sent)
    assert (failed.status // 100, failed.permanent, failed.retry_after) == (2, False, None)
    assert words in str(failed)
    assert "EXAMPLE_BASE_URL" in str(failed)


@pytest.mark.parametrize(
    "sent",
    [
        answer(200, b"", AS_JSON),
        answer(200, b"", "Content-Type: text/html"),
        answer(200, b'\xef\xbb\xbf{"a": 1}', AS_JSON),
        answer(200, json.dumps({"a": "x" * 9000}).encode(), AS_JSON),
        answer(200, gzip.compress(b"{}" + b" " * 20000), AS_JSON, "Content-Encoding: gzip"),
        answer(200, b"\x0b\x01\x80{}\x03", AS_JSON, "Content-Encoding: br"),
        answer(200, b"plain words", "Content-Type: text/plain"),
        b"HTTP/1.1 200 x\r\n%s\r\nContent-Length: 90\r\n\r\n{" % AS_JSON.encode(),
        b"HTTP/1.1 204 x\r\n\r\nbeyond",
        b"HTTP/1.1 204 x\r\nContent-Type: text/html\r\n\r\n",
        b"http/1.1 200 ok\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 x\nContent-Length: 2\n\n{}",
        b"HTTP/1.1 200 x\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 x\r\nX-Odd: a\x00b\r\ncOnTeNt-LeNgTh: 0\r\n\r\n",
        b"HTTP/1.0 200 x\r\n\r\n{}",
        CHUNKED % 200 + b"2;ext=1 \r\n{}\r\n0\r\nRetry-After: 5\r\n\r\n",
        answer(200, b"{}") + answer(500),
        b"HTTP/1.1 200 x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_an_untidy_success_is_one(sent):
    with Wire(lambda c, _: hear(c) and c.sendall(sent)) as wire, deadline(5):
        assert upstream(wire.url).delete("things", "t-1", tried="thing delete") is True


@pytest.mark.parametrize("body", [b"", b"OK", b"[]", b"{}"])
def test_where_the_body_says_whether_it_is_done_one_that_says_nothing_is_no_success(body):
    with FakeProvider() as provider:
        client = upstream(provider.answer(200, body).url, is_done=lambda body: "error" not in body)
        failed = failure(client)
    assert (failed.status, failed.permanent) == (200, False)


@pytest.mark.parametrize("status", [99, 101, 199, 600, 999])
def test_a_status_that_does_not_exist_is_a_failure_to_be_tried_again(status):
    failed = failure_after(b"HTTP/1.1 %03d x\r\nContent-Length: 0\r\n\r\n" % status)
    assert (failed.status, failed.permanent) == (status if status >= 600 else None, False)


@pytest.mark.parametrize("line", [b"X: %s\r\n" % (b"x" * 1_000_000), b"X: x\r\n" * 200_000])
def test_a_head_without_an_end_is_a_failure_to_be_tried_again(line):
    failed = failure_after(b"HTTP/1.1 200 x\r\n" + line + b"\r\n")
    assert (failed.status, failed.permanent) == (None, False)


def test_the_check_asks_for_json_and_takes_nothing_else(provider):
    client = upstream(provider.url)
    provider.answer(200, b"OK", Content_Type="text/plain").answer(200, {"items": []})
    client.get("things", params={}, tried="check")
    with pytest.raises(UpstreamFailed, match="200 with a body that is no JSON") as caught:
        client.get("things", params={}, tried="check")
    assert not caught.value.permanent
    client.get("things", params={}, tried="check")
    assert {sent.headers["Accept"] for sent in provider.requests} == {"application/json"}


def test_a_body_in_an_encoding_that_nobody_asked_for_decides_nothing(provider):
    client = upstream(provider.url)
    provider.answer(404, b"\x0b\x0a\x80" + JSON_GONE, Content_Encoding="br")
    client.delete("things", "t-1", tried="thing delete")
    failed = failure(client)
    assert (failed.status, failed.permanent) == (404, False)
    assert provider.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "asked", ["Retry-After: Wed, 06 Jan 2010 08:50:37 GMT", "X-RateLimit-Reset: 1262767837"]
)
def test_a_moment_to_wait_for_is_one_of_the_providers_clock(asked):
    """Ours, or theirs, may be years behind."""
    told = "Date: Wed, 06 Jan 2010 08:49:37 GMT"
    assert failure_after(answer(429, b"", told, asked)).retry_after == 60
    assert failure_after(answer(429, b"", asked)).retry_after == 0


def test_two_retry_afters_are_none(provider):
    sent = answer(503, b"", "Retry-After: 2814", "Retry-After: 2")
    assert failure_after(sent).retry_after is None


@pytest.mark.parametrize(
    ("status", "body", "headers", "seconds"),
    [
        (429, {"wait": 7}, {}, 7),
        (503, {"wait": "2.5"}, {}, 2.5),
        (429, {"wait": 7}, {"Retry_After": "30"}, 30),
        (429, {"wait": 7}, {"Retry_After": "soon"}, 7),
        (429, {}, {"X_RateLimit_Reset": "24"}, 24),
        (429, {"wait": 7}, {"X_RateLimit_Reset": "24"}, 7),
        (429, {}, {"X_RateLimit_Reset": "1392815263"}, 0),
        (429, {}, {"X_RateLimit_Reset": "4102444800"}, None),
        (429, {}, {"X_RateLimit_Reset": "2100-01-01T00:00:00Z"}, None),
        (503, {}, {"X_RateLimit_Reset": "24"}, None),
        (429, {"wait": True}, {}, None),
        (429, {"wait": -1}, {}, None),
        (429, b'{"wait": Infinity}', {}, None),
        (429, b'{"wait": NaN}', {}, None),
        (429, {"wait": {"seconds": 7}}, {}, None),
    ],
)
def test_how_long_to_wait_is_told_by_the_first_that_says_it(
    provider, status, body, headers, seconds
):
    client = upstream(provider.url, retry_after="wait")
    provider.answer(status, body, **headers)
    client.delete("things", "t-1", tried="thing delete")
    assert failure(client).retry_after == seconds


LONG_GONE = json.dumps({"more": "x" * 100_000, **GONE}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        answer(404, LONG_GONE),
        answer(410, JSON_GONE),
        b"http/1.1 404 not found\r\n\r\n" + JSON_GONE,
        answer(404, JSON_GONE),
        answer(404, JSON_GONE, "Content-Type: text/html"),
        answer(404, gzip.compress(JSON_GONE), "Content-Encoding: gzip"),
        CHUNKED % 404 + b"5\r\n" + JSON_GONE[:5] + b"\r\n10\r\n" + JSON_GONE[5:] + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 404 x\r\n\r\n" + JSON_GONE,
        b"HTTP/1.0 404 x\r\n\r\n" + JSON_GONE,
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(404, JSON_GONE),
    ],
    ids=[
        "long",
        "410",
        "lower-case",
        "plain",
        "mislabelled",
        "gzip",
        "chunked",
        "until-close",
        "http-1.0",
        "after-100",
    ],
)
def test_the_providers_own_404_is_told_in_every_way_a_body_can_travel(sent):
    with Wire(lambda c, _: hear(c) and c.sendall(sent)) as wire:
        assert upstream(wire.url).delete("things", "t-1", tried="thing delete") is False


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 400\r\n\r\n" + JSON_GONE[:9],
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + JSON_GONE[:5] + b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Content-Encoding: gzip\r\n\r\n" + JSON_GONE,
    ],
    ids=["length", "chunks", "bad-chunks", "bad-gzip"],
)
def test_where_the_body_decides_and_cannot_be_read_it_is_tried_again(status, sent):
    failed = failure_after(b"HTTP/1.1 %d x\r\n" % status + sent)
    assert (failed.status, failed.permanent) == (status, False)


def test_a_refused_key_is_a_refused_key_even_if_its_body_is_cut_short():
    failed = failure_after(b"HTTP/1.1 401 x\r\nContent-Length: 400\r\n\r\n{")
    assert (failed.status, failed.permanent) == (401, True)


@pytest.mark.parametrize(
    "sent", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 two x\r\n\r\n", b"\x00" * 70]
)
def test_what_is_no_http_is_a_failure_to_be_tried_again(sent):
    failed = failure_after(sent)
    assert (failed.status, failed.permanent) == (None, False)
    assert str(failed).startswith("Example: thing delete: no connection")


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503, 500, 409, 404])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        ("  30  ", 30),
        ("31536000", 31_536_000),
        ("9" * 30, float("9" * 30)),
        ("9" * 400, float("inf")),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("sun, 06 nov 1994 08:49:37 gmt", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("-5", None),
        ("292.05", 292.05),
        ("120s", None),
        ("2814, 2", None),
        ("Sun 120", None),
        ("1e3", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("30, 60", None),
        ("Fri, 99 Foo 2020 99:99:99 GMT", None),
        ("\u00b2", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_ignored(status, value, seconds):
    headers = {} if value is None else {"Retry_After": value}
    with FakeProvider() as provider:
        provider.answer(status, **headers)
        assert failure(upstream(provider.url)).retry_after == seconds


@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_retry_after_takes_each_of_the_three_forms_of_an_http_date(form):
    date = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime(form)
    with FakeProvider() as provider:
        provider.answer(503, Retry_After=date)
        assert 3500 < failure(upstream(provider.url)).retry_after <= 3600


# What it says


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"code": "race_condition"}, "409 race_condition"),
        ({"code": "errors/network_down"}, "409 errors/network_down"),
        ({"code": 17}, "409 17"),
        ({"code": None}, "409"),
        ({"code": ""}, "409"),
        ({"code": "two words"}, "409"),
        ({"code": "c" * 65}, "409"),
        ({"code": "a\nb"}, "409"),
        ({"code": "ada@outreach.example"}, "409"),
        ({"code": {"deep": 1}}, "409"),
        ({"code": ["a"]}, "409"),
        ({"message": "Ada's mailbox"}, "409"),
        (["code"], "409"),
        (b"<html>code</html>", "409"),
        (None, "409"),
    ],
)
def test_a_message_has_the_status_the_short_code_and_nothing_else_of_the_body(body, words):
    with FakeProvider() as provider:
        provider.answer(409, body)
        assert str(failure(upstream(provider.url))) == f"Example: thing delete: {words}"


def test_the_code_may_stand_in_any_field_and_make_a_failure_temporary(provider):
    client = upstream(provider.url, code="type", temporary_codes=frozenset({"busy"}))
    provider.answer(403, {"type": "busy", "code": "not_found"})
    client.delete("things", "t-1", tried="thing delete")
    failed = failure(client)
    assert (str(failed), failed.permanent) == ("Example: thing delete: 403 busy", False)


@pytest.mark.parametrize(
    ("code", "body", "told"),
    [
        ("error.code", {"error": {"code": "busy"}}, "busy"),
        ("error.code", {"error.code": "busy"}, "busy"),
        ("error.code", {"error": "busy"}, ""),
        ("error.code", {"error": {"code": {}}}, ""),
        ("error.code", {"error": {"code": 20404}}, "20404"),
        ("error", {"error": {"code": "busy"}}, ""),
        (lambda body: body["errors"][0]["reason"], {"errors": [{"reason": "busy"}]}, "busy"),
        (lambda body: body["errors"][0]["reason"], {"errors": []}, ""),
        (lambda body: body["errors"][0]["reason"], {"errors": None}, ""),
    ],
)
def test_a_code_is_found_by_its_path_or_by_a_function(provider, code, body, told):
    client = upstream(provider.url, code=code, temporary_codes=frozenset({"busy"}))
    provider.answer(400, body)
    client.delete("things", "t-1", tried="thing delete")
    failed = failure(client)
    assert str(failed) == f"Example: thing delete: 400 {told}".rstrip()
    assert failed.permanent == (told != "busy")


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500])
def test_no_message_holds_a_secret_the_id_the_url_or_the_body(provider, status):
    told = {"code": "a_code", "message": f"{KEY} may not touch secret-id"}
    client = upstream(provider.url + "/hidden-path")
    provider.answer(status, told, Location=f"{provider.url}/?{KEY}")
    client.delete("things", "secret-id", tried="thing delete")
    said = str(failure(client, "things", "secret-id"))
    assert said.startswith(f"Example: thing delete: {status}")
    assert not any(hidden in said for hidden in (KEY, "secret-id", "hidden-path", "127.0.0.1"))


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_a_key_in_the_query_is_in_no_failure_neither_as_it_is_nor_quoted(provider, status):
    key = "q+K/=&1%~<"
    client = upstream(provider.url, authenticate=in_query("api_key"))
    client.configure({"EXAMPLE_API_KEY": key, "EXAMPLE_BASE_URL": provider.url})
    provider.answer(status, {"code": quote(key)}, Location=f"/?api_key={quote(key)}")
    client.get("things", params={"api_key": "another", "of": "a&b"}, tried="check")
    failed = failure(client)
    told = "".join(traceback.format_exception(type(failed), failed, None)) + repr(vars(failed))
    assert not any(form in told for form in (key, quote(key, safe=""), quote(key)))
    paths = [sent.path for sent in provider.requests]
    assert paths[0] == f"/things?of=a%26b&api_key={quote(key, safe='')}"
    assert paths[1] == f"/things/t-1?api_key={quote(key, safe='')}"


def test_who_watches_the_calls_does_not_see_a_key_in_their_query(provider, monkeypatch):
    def watched(self, *request):
        seen.append(request)
        return send(self, *request)

    seen, send = [], Transport.send
    monkeypatch.setattr(Transport, "send", watched)
    client = upstream(provider.url, authenticate=in_query("k"))
    client.delete("things", "t-1", params={"of": "a"}, tried="thing delete")
    assert provider.requests[0].path == f"/things/t-1?of=a&k={KEY}"
    assert "/things/t-1?of=a" in repr(seen)
    assert KEY not in repr(seen)


@pytest.mark.parametrize(
    ("how", "echoed"),
    [
        (in_query("api_key"), f"bad/{KEY}"),
        (basic("us"), KEY),
        (basic("us"), b64encode(f"us:{KEY}".encode()).decode()),
        (lambda key: {"Authorization": f"Token {key}-{key}"}, f"{KEY}-{KEY}"),
    ],
)
def test_credentials_that_the_provider_echoes_as_its_code_are_not_told(provider, how, echoed):
    client = upstream(provider.url, authenticate=how)
    provider.answer(400, {"code": echoed})
    client.delete("things", "t-1", tried="thing delete")
    assert str(failure(client)) == "Example: thing delete: 400"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/p", "http://no..host/p", "http://-.invalid/p"])
def test_a_host_that_cannot_be_reached_is_a_failure_to_be_tried_again(url):
    client = upstream(url)
    with deadline(5), pytest.raises(UpstreamFailed) as caught:
        client.get("secret-id", params={"q": "secret-query"}, tried="check")
    said, failed = str(caught.value), caught.value
    assert (failed.status, failed.permanent, failed.retry_after) == (None, False, None)
    assert said.startswith("Example: check: no ")
    assert not any(hidden in said for hidden in (KEY, "secret-", "127.0.0.1", "host"))


def test_a_user_with_a_colon_would_give_a_part_of_it_to_the_key():
    with pytest.raises(ValueError, match="has no colon: RFC 7617"):
        basic("us:er")


# Its settings


def test_a_key_with_a_line_break_is_refused_without_being_shown():
    client = upstream("http://127.0.0.1:1")
    with pytest.raises(ConfigError) as caught:
        client.configure({"EXAMPLE_API_KEY": "abc\ndef"})
    assert "EXAMPLE_API_KEY" in str(caught.value)
    assert "abc" not in str(caught.value)


def test_white_space_around_the_key_and_the_slash_behind_the_url_are_dropped(provider):
    client = upstream(provider.url)
    client.configure(
        {"EXAMPLE_API_KEY": "\t the-key\n", "EXAMPLE_BASE_URL": f" {provider.url}/v1/ "}
    )
    client.delete("things", tried="thing delete")
    assert provider.requests[0].path == "/v1/things"
    assert provider.requests[0].headers["X-API-KEY"] == "the-key"


def test_without_the_service_it_reads_the_environment_at_the_first_request(provider, monkeypatch):
    client = Upstream(
        "Example",
        key_variable="EXAMPLE_API_KEY",
        base_url_variable="EXAMPLE_BASE_URL",
        base_url="https://api.example.com",
        authenticate=lambda key: {"X-API-KEY": key},
        code="code",
        is_gone=lambda body: False,
    )
    monkeypatch.setenv("EXAMPLE_API_KEY", "from-the-environment")
    monkeypatch.setenv("EXAMPLE_BASE_URL", provider.url)
    client.delete("things", tried="thing delete")
    assert provider.requests[0].headers["X-API-KEY"] == "from-the-environment"


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "EXAMPLE_API_KEY, EXAMPLE_HOST"),
        ({"EXAMPLE_API_KEY": " "}, "EXAMPLE_API_KEY, EXAMPLE_HOST"),
        ({"EXAMPLE_API_KEY": KEY}, "EXAMPLE_HOST"),
        ({"EXAMPLE_HOST": "h:1"}, "EXAMPLE_API_KEY"),
        ({"EXAMPLE_BASE_URL": "http://h"}, "EXAMPLE_API_KEY"),
        ({"EXAMPLE_API_KEY": KEY, "EXAMPLE_HOST": "h:1"}, None),
        ({"EXAMPLE_API_KEY": KEY, "EXAMPLE_BASE_URL": "http://h"}, None),
    ],
)
def test_what_is_not_set_is_named_and_makes_every_call_a_permanent_failure(environ, missing):
    client = upstream("http://127.0.0.1:1", base_url="https://{EXAMPLE_HOST}/v1")
    client.configure(environ)
    assert client.missing == missing
    if missing:
        failed = failure(client)
        assert str(failed) == f"Example: thing delete: {missing} is not set"
        assert failed.permanent


def test_no_time_left_is_a_failure_to_be_tried_again_and_nothing_is_sent(provider):
    with deadline(-1):
        failed = failure(upstream(provider.url))
    assert (str(failed), failed.permanent) == (
        "Example: thing delete: no time was left for it",
        False,
    )
    assert provider.requests == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://nowhere.invalid"])
def test_nobody_there_is_not_called_a_time_out(url):
    with pytest.raises(UpstreamFailed) as caught:
        upstream(url.format(port=free_port())).delete("things", "t-1", tried="thing delete")
    assert "within" not in str(caught.value)
    assert (caught.value.status, caught.value.permanent) == (None, False)
