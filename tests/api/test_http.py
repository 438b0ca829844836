"""Contract §1: the one route, its statuses and what every answer carries."""

import re
import uuid

import pytest
import requests
from support import assert_problem, only, send

NIL, MAX = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
V4 = "3f0c9b6e-7d1a-4b52-8e0f-5a6c2d9417b3"

# What the published pattern takes: versions 1 to 8, four variants, nil and max.
VALID = [
    *(f"3f0c9b6e-7d1a-{version}b52-8e0f-5a6c2d9417b3" for version in range(1, 9)),
    *(f"3f0c9b6e-7d1a-4b52-{variant}e0f-5a6c2d9417b3" for variant in "89abAB"),
    "0123456789abcdefABCDEF0123456789"[:8] + "-cdef-1ABC-bDEF-0123456789aF",
    NIL,
    MAX,
]
INVALID = [
    *(f"3f0c9b6e-7d1a-{version}b52-8e0f-5a6c2d9417b3" for version in "09aAfF"),
    *(f"3f0c9b6e-7d1a-4b52-{variant}e0f-5a6c2d9417b3" for variant in "07cCfF"),
    MAX.upper(),
    "F" + MAX[1:],
    NIL[:-1] + "1",
    MAX[:-1] + "e",
    V4[:-1],
    V4 + "0",
    "0" + V4,
    V4.replace("-", ""),
    V4.replace("-", "_"),
    V4[:-1] + "g",
    V4[:-1] + "%EF%BC%93",  # a full-width 3, which is a digit to Unicode
    *(V4 + end for end in ("%0A", "%0D%0A", "%00", "%20", "%09", "%FF", "%C2%A0", ";", ",")),
    *("%20" + V4, "%0A" + V4, "%7B" + V4 + "%7D", "urn:uuid:" + V4, "'" + V4 + "'"),
    *("1", "null", "%FF", "*", "%25", "..%00", "x" * 5000),
]

TYPES = {
    "a connected LinkedIn account": {"type": "linkedin", "provider_account_id": "acc-1"},
    "a disconnected LinkedIn account": {"type": "linkedin", "status": "disconnected"},
    "an e-mail account": {"type": "email", "email_address": "a@outreach.example"},
    "an account of a type nobody knows": {"type": "carrier-pigeon"},
}


@pytest.mark.parametrize("columns", TYPES.values(), ids=TYPES)
def test_success_is_exactly_the_published_body(live, columns):
    answer = live.delete(live.add(**columns))
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Teardown-Status"] == "complete"
    assert "Idempotency-Replayed" not in answer.headers


@only("sqlite")
@pytest.mark.parametrize("mode", ["fail", "rate-limit", "refuse"])
def test_a_providers_failure_changes_neither_status_nor_body(live, mode):
    live.sandbox.behave("unipile", mode)
    answer = live.delete(live.add_linkedin())
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert answer.headers["Teardown-Status"] == "partial"


# The id


def test_every_id_of_the_published_pattern_is_looked_up(live):
    for id in VALID:
        assert_problem(live.delete(id), 404, "account_not_found")
    for id in VALID:
        answer = live.delete(live.add(id=id.lower(), status="disconnected"))
        assert (id, answer.status_code) == (id, 200)


def test_any_other_id_is_refused_before_anything_is_done(live):
    live.add_linkedin(id=V4)
    live.add_linkedin(id=NIL)
    live.add_linkedin(id=MAX)
    for id in INVALID:
        assert_problem(live.delete(id), 400, "invalid_account_id")
    assert {live.row(id)["status"] for id in (V4, NIL, MAX)} == {"connected"}
    assert live.sandbox.calls == []


@pytest.mark.parametrize("spelled", [V4, V4.upper(), V4[:18].upper() + V4[18:]])
def test_upper_and_lower_case_name_the_same_account(live, spelled):
    live.add_linkedin(id=V4)
    assert live.delete(spelled).status_code == 200
    assert live.row(V4)["status"] == "disconnected"


# 404


def test_somebody_elses_account_looks_like_one_that_never_was(live):
    foreign = live.add_linkedin(user_id=str(uuid.uuid4()))
    foreign_mail = live.add_email(user_id=str(uuid.uuid4()))
    answers = [live.delete(id) for id in (foreign, foreign_mail, str(uuid.uuid4()))]
    for answer in answers:
        assert_problem(answer, 404, "account_not_found")
    assert len({answer.content for answer in answers}) == 1
    for answer in answers:
        del answer.headers["X-Request-ID"], answer.headers["Date"]
    assert answers[0].headers == answers[1].headers == answers[2].headers
    assert live.sandbox.calls == []
    assert (live.row(foreign)["status"], live.row(foreign_mail)["status"]) == ("connected",) * 2


def test_an_account_that_was_deleted_is_not_found(live):
    account = live.add_email()
    assert live.delete(account).status_code == 200
    calls = len(live.sandbox.calls)
    assert_problem(live.delete(account), 404, "account_not_found")
    assert len(live.sandbox.calls) == calls


OTHER_PATHS = [
    "/api/accounts/{id}/",
    "/api/accounts/{id}%2F",
    "/api/accounts/{id}/sends",
    "//api/accounts/{id}",
    "///api/accounts/{id}",
    "/%2Fapi/accounts/{id}",
    "/api//accounts/{id}",
    "/api/accounts//{id}",
    "/api/./accounts/{id}",
    "/x/../api/accounts/{id}",
    "/API/accounts/{id}",
    "/api/account/{id}",
    "/api/accounts/",
    "/api/accounts",
    "/api",
    "/",
    "/{id}",
    "/static/openapi.yaml",
    "/favicon.ico",
    "/health",
]


@only("sqlite")
def test_any_other_path_is_not_found_and_never_redirected(stack, gunicorn):
    server = gunicorn()
    account = stack.add_linkedin()
    for path in OTHER_PATHS:
        for method in ("DELETE", "GET", "OPTIONS"):
            target = path.format(id=account)
            answer = send(server.url, method, target, Authorization=f"Bearer {stack.key}")
            assert_problem(answer, 404, "not_found")
    assert stack.row(account)["status"] == "connected"
    assert stack.sandbox.calls == []


@only("sqlite")
def test_the_path_may_have_a_query_and_the_request_a_body(live):
    authorization = {"Authorization": f"Bearer {live.key}"}
    url = f"{live.url}/api/accounts/{live.add_linkedin()}?force=1"
    assert requests.delete(url, headers=authorization, json={"id": V4}).status_code == 200


@only("sqlite")
def test_there_is_one_rule_and_nothing_else(live):
    rules = [(rule.rule, rule.methods) for rule in live.app.url_map.iter_rules()]
    assert rules == [("/api/accounts/<account_id>", {"DELETE"})]


# 405


METHODS = [
    *("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"),
    *("TRACE", "CONNECT", "PROPFIND", "PURGE"),
]


@only("sqlite")
def test_any_other_method_is_refused_and_delete_alone_is_allowed(stack, gunicorn):
    server = gunicorn("--worker-class", "gevent")
    account = stack.add_linkedin()
    for method in METHODS:
        for id in (account, "not-an-id"):
            answer = send(server.url, method, f"/api/accounts/{id}")
            assert (method, answer.status_code) == (method, 405)
            assert answer.headers.get_all("Allow") == ["DELETE"]
            assert answer.headers["Content-Type"] == "application/problem+json"
            if method != "HEAD":
                assert_problem(answer, 405, "method_not_allowed")
    assert stack.row(account)["status"] == "connected"


ODD_HEADERS = [
    {"Host": "a..b"},
    {"Host": "a" * 100 + ".example"},
    {"Host": "b\xfccher.example"},
    {"Host": ""},
    {"Connection": "Upgrade", "Upgrade": "websocket"},
    {"X_Forwarded_Host": "a..b", "X_Forwarded_Proto": "gopher"},
    {"X_HTTP_Method_Override": "GET"},
    {"Accept": "text/html"},
    {"Content_Type": "application/json"},
]


@only("sqlite")
def test_no_other_header_makes_a_difference(stack, gunicorn):
    server = gunicorn("--worker-class", "gevent")
    authorization = f"Bearer {stack.key}"
    for headers in ODD_HEADERS:
        target = f"/api/accounts/{stack.add_linkedin()}"
        answer = send(server.url, "DELETE", target, Authorization=authorization, **headers)
        assert (headers, answer.status_code) == (headers, 200)


# The order: 401, 400, 404. Where 409 and 422 stand is in test_idempotency.py.


@only("sqlite")
def test_without_a_key_nothing_else_is_looked_at(live):
    for id in (live.add_linkedin(), V4, "not-an-id"):
        assert_problem(live.delete(id, key="unknown"), 401, "unauthorized")
        assert_problem(live.delete(id, key="unknown", Idempotency_Key=""), 401, "unauthorized")


@only("sqlite")
def test_a_malformed_request_is_refused_before_the_account_is_looked_for(live):
    assert_problem(live.delete(V4, Idempotency_Key=""), 400, "invalid_idempotency_key")


# X-Request-ID

TAKEN = ["a", "web-7f3a2c", "A.b_c-9", "-", "x" * 128]
REPLACED = ["", "x" * 129, "a b", "a/b", "a,b", "{}", 'a"', "a=b", "\xe9", "a\tb", "$(id)", "a:b"]


@only("sqlite")
@pytest.mark.parametrize("given", TAKEN, ids=lambda given: given[:10])
def test_the_callers_request_id_is_returned_and_sent_on(live, given):
    answer = live.delete(live.add_email(), X_Request_ID=given)
    assert answer.headers["X-Request-ID"] == given
    assert [call.request_id for call in live.sandbox.calls] == [given] * 3
    for id in (V4, "not-an-id", "a/b"):
        assert live.delete(id, X_Request_ID=given).headers["X-Request-ID"] == given
    refused = live.delete(V4, key="unknown", X_Request_ID=given)
    assert refused.headers["X-Request-ID"] == given


@only("sqlite")
@pytest.mark.parametrize("given", [None, *REPLACED], ids=lambda given: repr(given)[:10])
def test_any_other_request_id_is_replaced_by_a_new_one(live, given):
    headers = {} if given is None else {"X_Request_ID": given.encode("latin-1")}
    made = []
    for _ in range(2):
        made.append(live.delete(live.add_linkedin(), **headers).headers["X-Request-ID"])
        assert live.sandbox.calls[-1].request_id == made[-1]
    assert made[0] != made[1]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", id) and id != given for id in made)
