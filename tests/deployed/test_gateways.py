"""The sites of deploy/ in nginx and Caddy, in front of the real service."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Iterator

import pytest
import requests
from gateways import Caddy, Gateway, Nginx, needed
from support import Gunicorn, Stack, assert_problem, wait_until
from wire import Wire, hear

from puffle_accounts.demo.sandbox import Sandbox

both_gateways = pytest.mark.parametrize(
    "kind", [pytest.param(each, marks=needed(each), id=each.program) for each in (Nginx, Caddy)]
)
UNKNOWN = "0d9a8a52-7f0c-4f38-9d0a-5f1d7a1c9b3e"


@pytest.fixture(scope="module")
def instance(tmp_path_factory) -> Iterator[Stack]:
    """One instance for this file; under gthread a slow client would hold a thread."""
    folder = tmp_path_factory.mktemp("instance")
    with Sandbox() as sandbox:
        stack = Stack(f"sqlite:///{folder / 'test.db'}", sandbox)
        threads = ("--worker-class", "gthread", "--threads", "2")
        server = Gunicorn(stack, folder / "gunicorn.log", *threads).wait_until_ready()
        stack.address = "{}:{}".format(*server.address)
        yield stack
        server.stop()
        stack.database.close_all()


@pytest.fixture
def gateway(kind, instance, certificate) -> Iterator[Gateway]:
    with kind([instance.address, instance.address], certificate) as gateway:
        yield gateway


@pytest.fixture
def delete(instance, certificate):
    """Send a DELETE by way of a gateway."""

    def send(
        gateway: Gateway, account: str, path="/api/accounts/", **headers: str
    ) -> requests.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = requests.Request(
            "DELETE", gateway.url, headers={"Authorization": f"Bearer {instance.key}", **sent}
        ).prepare()
        request.url = f"{gateway.url}{path}{account}"  # unchanged, however untidy
        with requests.Session() as session:
            return session.send(request, verify=str(certificate), timeout=30)

    return send


@both_gateways
def test_a_callers_request_id_is_kept_and_is_in_the_gateways_log(gateway, instance, delete):
    answer = delete(gateway, instance.add_email(), X_Request_ID="from-the-caller.1")
    assert answer.headers["X-Request-ID"] == "from-the-caller.1"
    assert answer.headers["Teardown-Status"] == "complete"
    assert {call.request_id for call in instance.sandbox.calls} >= {"from-the-caller.1"}
    wait_until(lambda: "from-the-caller.1" in gateway.log())


@both_gateways
@pytest.mark.parametrize("headers", [{}, {"X_Request_ID": "not one of ours"}], ids=["none", "bad"])
def test_where_the_caller_has_no_usable_request_id_there_is_one_for_both_logs(
    gateway, delete, headers
):
    answer = delete(gateway, UNKNOWN, **headers)
    assert_problem(answer, 404, "account_not_found")
    wait_until(lambda: answer.headers["X-Request-ID"] in gateway.log())


@both_gateways
@pytest.mark.parametrize(
    "path", ["//api/accounts/", "/api//accounts/", "/api%2Faccounts/", "/api/accounts/x/../"]
)
def test_a_path_is_passed_on_as_it_came(gateway, instance, delete, path):
    account = instance.add_email()
    assert_problem(delete(gateway, account, path), 404, "not_found")
    assert instance.row(account) is not None


@both_gateways
def test_a_client_that_left_before_the_answer_repeats_with_its_key(gateway, instance, delete):
    account, key = instance.add_linkedin(), uuid.uuid4().hex
    instance.sandbox.behave("unipile", "hang")
    before = len(instance.sandbox.calls)
    with socket.create_connection(("localhost", gateway.port)) as plain:
        context = ssl._create_unverified_context()
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(
                f"DELETE /api/accounts/{account} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {instance.key}\r\nIdempotency-Key: {key}\r\n\r\n".encode()
            )
            wait_until(lambda: len(instance.sandbox.calls) > before)
    assert_problem(delete(gateway, account, Idempotency_Key=key), 409, "idempotency_key_in_use")
    instance.sandbox.behave("unipile", "ok")
    wait_until(lambda: instance.row(account)["status"] == "disconnected")
    again = wait_until(
        lambda: (answer := delete(gateway, account, Idempotency_Key=key)).ok and answer
    )
    assert again.headers["Idempotency-Replayed"] == "true"
    assert instance.row(account)["status"] == "disconnected", "a repeat without it deletes the row"


@both_gateways
def test_what_an_instance_was_sent_is_sent_to_no_other(kind, instance, delete, certificate):
    """The first breaks off in the middle; by default nginx would repeat the DELETE."""
    account = instance.add_linkedin()
    with (
        Wire(lambda connection, _: hear(connection)) as breaks_off,
        kind([f"127.0.0.1:{breaks_off.port}", instance.address], certificate) as gateway,
    ):
        answers = [delete(gateway, account) for _ in range(2)]
    assert sorted(answer.status_code for answer in answers) == [200, 502]
    assert breaks_off.connections == 1
    assert instance.row(account)["status"] == "disconnected", "once"


@both_gateways
def test_an_instance_that_takes_no_connection_costs_nobody_an_error(
    kind, instance, delete, certificate
):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = "{}:{}".format(*listener.getsockname())
    accounts = [instance.add_email() for _ in range(4)]
    with kind([nobody, instance.address], certificate) as gateway:
        answers = [delete(gateway, account) for account in accounts]
    assert [answer.headers.get("Teardown-Status") for answer in answers] == ["complete"] * 4


@both_gateways
def test_clients_that_dawdle_hold_no_thread(gateway, instance, delete):
    context = ssl._create_unverified_context()
    dawdlers = [
        context.wrap_socket(
            socket.create_connection(("localhost", gateway.port)), server_hostname="localhost"
        )
        for _ in range(3)  # more than there are threads
    ]
    for dawdler in dawdlers:
        dawdler.sendall(f"DELETE /api/accounts/{UNKNOWN} HTTP/1.1\r\nHost: localho".encode())
    assert delete(gateway, instance.add_email()).headers["Teardown-Status"] == "complete"
    for dawdler in dawdlers:
        dawdler.sendall(b"st\r\nConnection: close\r\n\r\n")
        assert b" 401 " in dawdler.recv(65536)
        dawdler.close()


@both_gateways
def test_a_large_header_reaches_the_service_or_is_refused(gateway, instance, delete):
    account = instance.add_email()
    refused = delete(gateway, account, Cookie="c" * 40_000)
    assert refused.status_code in (400, 431)
    assert instance.row(account) is not None
    assert delete(gateway, account, Cookie="c" * 4_000).status_code == 200


@both_gateways
def test_a_provider_that_takes_its_time_is_waited_for(gateway, instance, delete):
    """The gateway's patience is longer than the teardown deadline."""
    instance.sandbox.behave("unipile", "hang")
    answer = delete(gateway, instance.add_linkedin())
    instance.sandbox.behave("unipile", "ok")
    assert (answer.status_code, answer.headers["Teardown-Status"]) == (200, "partial")
