"""Contract §1: 401, and its challenge (RFC 6750 §3)."""

import pytest
import requests
from support import assert_problem, only

from puffle_accounts import keys
from puffle_accounts.database.models import ApiKey

NO_TOKEN = ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token {key}", "{key}", "BearerX {key}"]
BAD_TOKEN = [
    "Bearer x",
    "bearer x",
    "BEARER x",
    "Bearer a=b",
    "Bearer =",
    "Bearer a=b, c=d",
    'Bearer "{key}"',
    "Bearer {key}x",
    "Bearer x{key}",
    "Bearer {key} x",
    "Bearer {key},{key}",
    "Bearer {swapped}",
    "Bearer {sha256}",
    "Bearer sch\xf6n",
    "Bearer \xe2\x82\xac",
    "Bearer " + "x" * 5000,
    "Bearer {revoked}",
]


@pytest.fixture
def revoked(live) -> str:
    with live.database.writing():
        key = keys.create(live.user_id, "lost with the laptop")
        assert keys.revoke(ApiKey.get(ApiKey.name == "lost with the laptop").id)
    return key


def _present(live, revoked, authorization):
    filled = authorization.format(
        key=live.key,
        revoked=revoked,
        swapped=live.key.swapcase(),
        sha256=live.sql("SELECT sha256 FROM api_keys")[0][0],
    )
    sent = {"Authorization": filled.encode("latin-1")}
    account = live.add_linkedin()
    answer = requests.delete(f"{live.url}/api/accounts/{account}", headers=sent)
    assert_problem(answer, 401, "unauthorized")
    assert (live.row(account)["status"], live.sandbox.calls) == ("connected", [])
    return answer.headers["WWW-Authenticate"]


@only("sqlite")
@pytest.mark.parametrize("authorization", NO_TOKEN)
def test_without_a_token_the_challenge_names_no_error(live, revoked, authorization):
    assert _present(live, revoked, authorization) == 'Bearer realm="puffle"'


@only("sqlite")
@pytest.mark.parametrize("authorization", BAD_TOKEN, ids=lambda value: ascii(value)[:24])
def test_a_token_that_is_no_key_is_called_invalid(live, revoked, authorization):
    challenge = 'Bearer realm="puffle", error="invalid_token"'
    assert _present(live, revoked, authorization) == challenge


def test_a_request_without_the_header_is_challenged(live):
    answer = requests.delete(f"{live.url}/api/accounts/{live.add_linkedin()}")
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="puffle"'


def test_a_revoked_key_is_refused_and_the_users_other_key_is_not(live, revoked):
    account = live.add_linkedin()
    assert_problem(live.delete(account, key=revoked), 401, "unauthorized")
    assert live.delete(account).status_code == 200


@only("sqlite")
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_taken_in_any_case(live, scheme):
    sent = {"Authorization": f"{scheme} {live.key}"}
    url = f"{live.url}/api/accounts/{live.add_linkedin()}"
    assert requests.delete(url, headers=sent).status_code == 200
