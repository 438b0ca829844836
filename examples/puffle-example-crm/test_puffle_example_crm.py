import puffle_example_crm

from puffle_accounts.testing import PluginConformance, Reply, account

CONTACT = account(metadata={"example_crm_contact": "c-1"})


class TestExampleCRM(PluginConformance):
    plugin = puffle_example_crm
    theirs = CONTACT
    not_theirs = account(email_address="ada@outreach.example")
    key_variable = "EXAMPLE_CRM_API_KEY"
    done = Reply(204)
    gone = Reply(404, {"code": "contact_not_found"})
    pages = (
        Reply(200, {"contacts": [{"id": "c-1"}], "next": "c-1"}),
        Reply(200, {"contacts": [{"id": "c-2", "name": "Ada"}]}),
    )
    listed = ("c-1", "c-2")


def test_it_deletes_the_contact(teardown, fake_provider):
    assert teardown(puffle_example_crm, CONTACT).said == "contact deleted"
    (request,) = fake_provider.requests
    assert (request.method, request.path) == ("DELETE", "/contacts/c-1")
    assert request.headers["Authorization"].startswith("Bearer ")


def test_what_is_left_is_deleted_later(service, fake_provider):
    alone = service(puffle_example_crm)
    fake_provider.answer(503, {"code": "busy"}).answer(204)
    alone.delete(alone.add(CONTACT))
    assert [each["reason"] for each in alone.orphans()] == ["Example CRM: contact delete: 503 busy"]
    assert alone.retry() == {"done": 1}
