"""Instantly's plugin: the kit's proof, and what is Instantly's alone."""

from __future__ import annotations

import json

import puffle_instantly
import pytest
from wire import Wire, hear

from puffle_accounts import TeardownFailed
from puffle_accounts.testing import PluginConformance, Reply, account, call, check, holdings

ADDRESS = account(email_address="a@b.co")
DISABLED = Reply(200, {"type": "update-warmup-accounts", "status": "pending", "progress": 0})
GONE = {"statusCode": 404, "error": "Not Found", "message": "Resource not found"}


def page(*emails, **following):
    items = [{"email": email, "timestamp_created": "2026-01-02", "status": 1} for email in emails]
    return Reply(200, {"items": items, **following})


class TestInstantly(PluginConformance):
    plugin = puffle_instantly
    theirs = ADDRESS
    not_theirs = (
        account(agentmail_inbox_id="a@b.co", provider_account_id="acc-1"),
        account(type="linkedin", email_address="a@b.co"),
    )
    key_variable = "INSTANTLY_API_KEY"
    before = (DISABLED,)
    done = Reply(200, {"email": "a@b.co", "warmup_status": 0})
    gone = Reply(404, GONE)
    pages = (page("a@b.co", "c@d.co", next_starting_after="c@d.co"), page("e@f.co"))
    listed = ("a@b.co", "c@d.co", "e@f.co")
    permanent = tuple(
        Reply(404, {name: said for name, said in body.items() if said})
        for body in (
            {**GONE, "message": "Workspace not found"},
            {**GONE, "message": None},
            {**GONE, "error": None},
            {**GONE, "statusCode": None},
        )
    )


@pytest.mark.parametrize(
    ("ids", "address"),
    [
        ({"instantly_account_id": "i@b.co", "email_address": "e@b.co"}, "i@b.co"),
        ({"instantly_account_id": "", "email_address": "e@b.co"}, "e@b.co"),
    ],
)
def test_the_warm_up_of_this_one_address_is_disabled_and_then_it_is_deleted(
    ids, address, teardown, fake_provider, monkeypatch
):
    monkeypatch.setenv("INSTANTLY_API_KEY", "the-key")
    said = teardown(puffle_instantly, account(**ids)).said
    assert said == "warm-up disabled, account deleted"
    disable, delete = fake_provider.requests
    assert (disable.method, disable.path) == ("POST", "/api/v2/accounts/warmup/disable")
    assert disable.headers["Content-Type"] == "application/json"
    assert json.loads(disable.body) == {"emails": [address]}
    quoted = address.replace("@", "%40")
    assert (delete.method, delete.path) == ("DELETE", f"/api/v2/accounts/{quoted}")
    assert "Content-Type" not in delete.headers
    assert {disable.headers["Authorization"], delete.headers["Authorization"]} == {"Bearer the-key"}


# Whatever becomes of the disable, the delete is tried


@pytest.mark.parametrize("status", [302, 400, 401, 402, 404, 422, 429, 500, 503])
def test_a_refused_disable_does_not_keep_the_delete_from_being_done(
    status, teardown, fake_provider
):
    fake_provider.answer(status, Retry_After="600").answer(200)
    result = teardown(puffle_instantly, ADDRESS)
    assert [sent.method for sent in fake_provider.requests] == ["POST", "DELETE"]
    assert result.failure is None
    assert result.said.startswith(f"warm-up not disabled (Instantly: warm-up disable: {status}")
    assert result.said.endswith("), account deleted")


def test_what_is_not_there_is_not_told_as_disabled_or_deleted(teardown, fake_provider):
    fake_provider.answer(404, GONE)
    said = teardown(puffle_instantly, ADDRESS).said
    assert said == "warm-up was not there, account was not there"


@pytest.mark.parametrize("what", ["hang", "drip", "reset", "break_off", "garbage"])
def test_a_disable_without_an_answer_leaves_the_delete_its_time(what, teardown, fake_provider):
    getattr(fake_provider, what)().answer(200)
    result = teardown(puffle_instantly, ADDRESS, seconds=2)
    assert [sent.method for sent in fake_provider.requests] == ["POST", "DELETE"]
    assert result.said.startswith("warm-up not disabled (Instantly: warm-up disable: ")
    assert result.said.endswith("), account deleted")


def test_a_disable_that_hangs_is_given_up_after_four_tenths_of_the_time(teardown, fake_provider):
    fake_provider.hang().answer(200)
    said = teardown(puffle_instantly, ADDRESS, seconds=2.1).said
    assert "warm-up disable: no answer within 0.8 s" in said


@pytest.mark.parametrize("disable", [200, 500])
def test_the_failure_of_the_delete_is_what_counts(disable, teardown, fake_provider):
    fake_provider.answer(disable).answer(503)
    result = teardown(puffle_instantly, ADDRESS)
    assert (result.said, result.permanent) == (None, False)
    assert result.failure == "Instantly: account delete: 503"


def test_its_code_tells_what_is_wrong(teardown, fake_provider):
    body = {"statusCode": 400, "code": "FST_ERR_CTP_EMPTY_JSON_BODY", "message": "secret"}
    fake_provider.reply(DISABLED).answer(400, body)
    failure = teardown(puffle_instantly, ADDRESS).failure
    assert failure == "Instantly: account delete: 400 FST_ERR_CTP_EMPTY_JSON_BODY"


def test_its_list_and_its_check_ask_page_by_page_and_tell_what_is_wrong(fake_provider, monkeypatch):
    monkeypatch.setenv("INSTANTLY_API_KEY", "the-key")
    monkeypatch.setenv("INSTANTLY_BASE_URL", fake_provider.url)
    fake_provider.reply(*TestInstantly.pages)
    found = list(holdings(puffle_instantly))
    assert [sent.path for sent in fake_provider.requests] == [
        "/api/v2/accounts?limit=100",
        "/api/v2/accounts?limit=100&starting_after=c%40d.co",
    ]
    assert check(puffle_instantly) is None
    assert fake_provider.requests[-1].path == "/api/v2/accounts?limit=1"
    fake_provider.answer(401)
    assert check(puffle_instantly) == "Instantly: credentials check: 401 (check INSTANTLY_API_KEY)"
    with pytest.raises(TeardownFailed, match="Instantly: account list: 401"):
        list(holdings(puffle_instantly))
    assert f"{found[0].created_at:%Y-%m-%d}" == "2026-01-02"


def test_without_a_base_url_its_own_host_is_asked_by_tls(monkeypatch):
    heard = []
    monkeypatch.setenv("INSTANTLY_API_KEY", "the-key")
    with Wire(lambda connection, _: heard.append(hear(connection))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert not call(puffle_instantly, ADDRESS).permanent
    assert heard[0].startswith(b"CONNECT api.instantly.ai:443 HTTP/1.")
    assert b"the-key" not in b"".join(heard)
