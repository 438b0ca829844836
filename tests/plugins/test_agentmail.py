"""AgentMail's plugin: the kit's proof, and what is AgentMail's alone."""

from __future__ import annotations

import puffle_agentmail
import pytest
from wire import Wire, hear

from puffle_accounts import TeardownFailed
from puffle_accounts.testing import PluginConformance, Reply, account, call, check, holdings

INBOX = account(agentmail_inbox_id="ada@agentmail.to")
GONE = {"name": "NotFoundError", "code": "not_found", "message": "Inbox not found"}


def page(*ids, **following):
    inboxes = [
        {"inbox_id": id, "email": f"by-{id}", "display_name": "Ada", "created_at": "2026-01-02"}
        for id in ids
    ]
    return Reply(200, {"count": len(ids), "limit": 100, "inboxes": inboxes, **following})


class TestAgentMail(PluginConformance):
    plugin = puffle_agentmail
    theirs = INBOX
    not_theirs = (
        account(email_address="a@b.co", instantly_account_id="a@b.co"),
        account(type="linkedin", agentmail_inbox_id="a@b.co"),
    )
    key_variable = "AGENTMAIL_API_KEY"
    done = Reply(204)
    gone = Reply(404, GONE)
    pages = (page("a@b.co", next_page_token="t/1"), page("c@d.co"))
    listed = ("a@b.co", "c@d.co")
    temporary = (
        Reply(403, {"code": "resource_deleting"}),
        Reply(403, {"code": "cannot_delete"}),
        Reply(409, {"code": "race_condition"}),
    )
    permanent = (
        Reply(403, {"code": "missing_permission"}),
        Reply(403, {"code": "brand_new_code"}),
        Reply(400, {"code": "not_found"}),
        Reply(404, {"name": "NotFoundError", "code": "route_not_found"}),
        Reply(404, {"code": {"not_found": True}}),
        Reply(404, {"error": {"code": "not_found"}}),
        Reply(404, [{"code": "not_found"}]),
    )


def test_the_inbox_is_deleted(teardown, fake_provider, monkeypatch):
    monkeypatch.setenv("AGENTMAIL_API_KEY", "the-key")
    assert teardown(puffle_agentmail, INBOX).said == "inbox deleted"
    (sent,) = fake_provider.requests
    assert (sent.method, sent.path) == ("DELETE", "/v0/inboxes/ada%40agentmail.to")
    assert (sent.headers["Authorization"], sent.body) == ("Bearer the-key", b"")
    assert "Content-Type" not in sent.headers


def test_an_inbox_that_is_gone_is_not_told_as_deleted(teardown, fake_provider):
    fake_provider.answer(404, GONE)
    assert teardown(puffle_agentmail, INBOX).said == "inbox was not there"


@pytest.mark.parametrize("code", ["missing_permission", "cannot_delete"])
def test_its_code_tells_what_is_wrong(code, teardown, fake_provider):
    fake_provider.answer(403, {"name": "AnError", "code": code, "message": "secret"})
    assert teardown(puffle_agentmail, INBOX).failure == f"AgentMail: inbox delete: 403 {code}"


def test_its_list_and_its_check_ask_page_by_page_and_tell_what_is_wrong(fake_provider, monkeypatch):
    monkeypatch.setenv("AGENTMAIL_API_KEY", "the-key")
    monkeypatch.setenv("AGENTMAIL_BASE_URL", fake_provider.url)
    fake_provider.reply(*TestAgentMail.pages)
    found = list(holdings(puffle_agentmail))
    assert [sent.path for sent in fake_provider.requests] == [
        "/v0/inboxes?limit=100",
        "/v0/inboxes?limit=100&page_token=t%2F1",
    ]
    assert check(puffle_agentmail) is None
    assert fake_provider.requests[-1].path == "/v0/inboxes?limit=1"
    fake_provider.answer(401)
    assert check(puffle_agentmail) == "AgentMail: credentials check: 401 (check AGENTMAIL_API_KEY)"
    with pytest.raises(TeardownFailed, match="AgentMail: inbox list: 401"):
        list(holdings(puffle_agentmail))
    assert (found[0].name, f"{found[0].created_at:%Y-%m-%d}") == ("Ada", "2026-01-02")


def test_without_a_base_url_its_own_host_is_asked_by_tls(monkeypatch):
    heard = []
    monkeypatch.setenv("AGENTMAIL_API_KEY", "the-key")
    with Wire(lambda connection, _: heard.append(hear(connection))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert not call(puffle_agentmail, INBOX).permanent
    assert heard[0].startswith(b"CONNECT api.agentmail.to:443 HTTP/1.")
    assert b"the-key" not in b"".join(heard)
