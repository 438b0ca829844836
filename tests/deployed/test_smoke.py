def test_a_connected_linkedin_account_is_revoked_and_kept(live):
    account = live.add_linkedin()
    answer = live.delete(account)
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert live.row(account)["status"] == "disconnected"
    assert live.sandbox.resources["unipile"] == set()


def test_an_email_account_is_taken_apart_through_gunicorn(stack, gunicorn):
    gunicorn("--worker-class", "gevent")
    account = stack.add_email()
    assert stack.delete(account).headers["Teardown-Status"] == "complete"
    assert stack.row(account) is None
