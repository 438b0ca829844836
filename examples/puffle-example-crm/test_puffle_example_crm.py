import puffle_example_crm as plugin
import pytest

from puffle_accounts import Resource
from puffle_accounts.testing import FakeProvider, account, call, check, holdings


@pytest.fixture
def provider(monkeypatch):
    with FakeProvider() as provider:
        monkeypatch.setenv("EXAMPLE_CRM_API_KEY", "any")
        monkeypatch.setenv("EXAMPLE_CRM_BASE_URL", provider.url)
        yield provider


def test_it_deletes_the_contact(provider):
    result = call(plugin, account(metadata={"example_crm_contact": "c-1"}))
    assert result.said == "contact deleted"
    (request,) = provider.requests
    assert (request.method, request.path) == ("DELETE", "/contacts/c-1")


def test_a_contact_that_is_gone_already_is_a_success(provider):
    provider.answer(404, {"code": "contact_not_found"})
    result = call(plugin, account(metadata={"example_crm_contact": "c-1"}))
    assert result.said == "contact was not there"


def test_it_leaves_accounts_without_a_contact_alone(provider):
    assert call(plugin, account()).said is None
    assert provider.requests == []


def test_a_provider_that_is_busy_is_asked_again_later(provider):
    provider.answer(429, {"code": "slow_down"}, Retry_After="30")
    result = call(plugin, account(metadata={"example_crm_contact": "c-1"}))
    assert result.failure == "Example CRM: contact delete: 429 slow_down"
    assert (result.retry_after, result.permanent) == (30, False)


def test_it_lists_every_contact(provider):
    provider.answer(200, {"contacts": [{"id": "c-1"}], "next": "c-1"})
    provider.answer(200, {"contacts": [{"id": "c-2", "name": "Ada"}]})
    assert list(holdings(plugin)) == [Resource("c-1"), Resource("c-2", "Ada")]


def test_the_check_tells_a_refused_key(provider):
    provider.answer(401, {"code": "unknown_key"})
    assert "401" in check(plugin)
