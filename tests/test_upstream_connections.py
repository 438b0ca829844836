"""The HTTP client for plugins: its clock, its connections, and the way to the provider."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from wire import KEY, Wire, answer, deadline, hear, server_side, upstream

from puffle_accounts import transport
from puffle_accounts.errors import ConfigError, UpstreamFailed
from puffle_accounts.upstream import Upstream

# What hangs here hangs for ever unless the client ends it.
pytestmark = pytest.mark.timeout(60)

OK = answer(200, b"{}")
GONE = json.dumps({"code": "not_found"}).encode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """No proxy and no CA bundle of whoever runs the tests stands in between."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


def delete(client: Upstream, thing: str = "t-1", share: float = 1.0) -> bool:
    return client.delete("things", thing, tried="thing delete", share=share)


def failure(client: Upstream, share: float = 1.0) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        delete(client, share=share)
    return caught.value


class Provider:
    """Speaks bytes: answers the n-th request on a connection as `script(connection, n)` does."""

    def __init__(self, script, tls=None):
        self.heard: list[bytes] = []
        self.left = threading.Event()
        self._script = script
        self._tls = tls

    def __call__(self, connection, number):
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            for count in range(1, 1000):
                request = hear(connection)
                if not request:
                    break
                self.heard.append(request)
                if self._script(connection, (number, count)) == "close":
                    break
        finally:
            connection.close()
            self.left.set()


@contextmanager
def serving(script, tls=None):
    """Yield a client, its provider and its wire."""
    provider = Provider(script, tls)
    with Wire(provider) as wire:
        yield upstream(wire.url.replace("http:", "https:") if tls else wire.url), provider, wire


# The clock


def drip(*start: bytes, each: bytes = b"x"):
    """Send a start at once and then some bytes every 0.1 s, for ever."""

    def script(connection, _):
        connection.sendall(b"".join(start))
        while True:
            time.sleep(0.1)
            connection.sendall(each)

    return script


@pytest.mark.parametrize(
    "script",
    [
        drip(b"HTTP/1.1 2", each=b""),
        drip(b"HTTP/1.1 200 "),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n", each=b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda connection, _: time.sleep(60),
    ],
    ids=["status", "reason", "headers", "interim", "silence"],
)
def test_an_answer_that_does_not_come_ends_by_the_clock(script):
    with serving(script) as (client, provider, wire), deadline(0.36):
        failed = failure(client)
        assert (failed.status, failed.permanent) == (None, False)
        assert str(failed) == "Example: thing delete: no answer within 0.3 s"
        assert (len(provider.heard), wire.connections) == (1, 1)


@pytest.mark.parametrize(("status", "permanent"), [(404, False), (500, False)])
@pytest.mark.parametrize(
    ("headers", "each"),
    [(b"Content-Length: 900", b"x"), (b"Transfer-Encoding: chunked", b"1\r\nx\r\n"), (b"", b"x")],
)
def test_a_body_that_drips_ends_by_the_clock_and_its_connection_is_closed(
    status, permanent, headers, each
):
    start = b"HTTP/1.1 %d x\r\n%s\r\n\r\n" % (status, headers)
    with serving(drip(start, each=each)) as (client, provider, _), deadline(0.5):
        failed = failure(client)
        assert (failed.status, failed.permanent) == (status, permanent)
        assert provider.left.wait(10)


def test_a_200_is_done_although_its_body_drips():
    with serving(drip(b"HTTP/1.1 200 x\r\nContent-Length: 900\r\n\r\n")) as (client, provider, _):
        assert delete(client) is True
        assert provider.left.wait(10)


@contextmanager
def silence(host: str, port: int = 0):
    """Yield the port of an address where nobody accepts, refuses or answers."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):  # once the queue is full, nobody gets an answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connect_that_hangs_ends_by_the_clock():
    with silence("127.0.0.1") as port, deadline(0.36):
        failed = failure(upstream(f"http://127.0.0.1:{port}"))
    assert str(failed) == "Example: thing delete: no connection within 0.3 s"
    assert not failed.permanent


@pytest.mark.parametrize(("share", "seconds"), [(1.0, "0.9"), (0.4, "0.4")])
def test_a_call_gets_its_share_of_the_time_that_is_left(share, seconds):
    with serving(lambda connection, _: time.sleep(60)) as (client, _, _), deadline(1):
        assert str(failure(client, share)).endswith(f"no answer within {seconds} s")


# Repeats


@pytest.mark.parametrize("status", [408, 413, 429, 500, 502, 503, 504])
def test_an_answer_is_never_asked_for_twice(status):
    sent = answer(status, b"", "Retry-After: 0")
    with serving(lambda connection, _: connection.sendall(sent)) as (client, provider, wire):
        assert failure(client).status == status
        assert (len(provider.heard), wire.connections) == (1, 1)


def hang_up(connection):
    return "close"


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return "close"


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_fresh_connection_that_is_closed_is_a_failure_without_a_repeat(end):
    with serving(lambda connection, _: end(connection)) as (client, provider, wire):
        assert not failure(client).permanent
        assert (len(provider.heard), wire.connections) == (1, 1)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("end", [hang_up, reset])
@pytest.mark.parametrize(
    "ask",
    [delete, lambda client: client.post("stop", payload={"emails": ["a@b.co"]}, tried="stop")],
    ids=["delete", "post"],
)
def test_a_kept_alive_connection_that_turns_out_to_be_closed_is_replaced_once(
    ask, end, tls, certificate, monkeypatch
):
    def script(connection, at):
        return end(connection) if at == (1, 2) else connection.sendall(OK)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(script, server_side(certificate) if tls else None) as (client, provider, wire):
        assert delete(client)
        assert ask(client)
        _, second, repeat = provider.heard
        assert second == repeat != b""
        assert wire.connections == 2


@pytest.mark.parametrize("tls", [False, True])
def test_it_is_replaced_even_if_that_turns_out_while_it_is_written_to(
    tls, certificate, monkeypatch
):
    def serve(connection, number):
        if tls:
            connection = server_side(certificate).wrap_socket(connection, server_side=True)
        hear(connection)
        connection.sendall(OK)
        if number == 1:
            connection.recv(1000)  # of the second request, and then it is gone
            reset(connection)
            connection.close()
        hear(connection)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Wire(serve) as wire:
        client = upstream(wire.url.replace("http:", "https:") if tls else wire.url)
        assert delete(client)
        assert client.post("stop", payload="x" * 9_000_000, tried="stop")
        assert wire.connections == 2


@pytest.mark.parametrize("end", [hang_up, reset])
def test_it_is_repeated_once_and_no_more(end):
    def script(connection, at):
        return connection.sendall(OK) if at == (1, 1) else end(connection)

    with serving(script) as (client, provider, wire):
        assert delete(client)
        assert not failure(client).permanent
        assert (len(provider.heard), wire.connections) == (3, 2)


def test_silence_on_a_kept_alive_connection_is_not_asked_again():
    def script(connection, at):
        return connection.sendall(OK) if at == (1, 1) else time.sleep(60)

    with serving(script) as (client, provider, wire), deadline(1):
        assert delete(client)
        assert "no answer" in str(failure(client))
        assert (len(provider.heard), wire.connections) == (2, 1)


def test_a_connection_that_was_closed_while_idle_costs_no_failure():
    def script(connection, at):
        connection.sendall(OK)
        return "close" if at == (1, 1) else None

    with serving(script) as (client, provider, wire):
        assert delete(client)
        assert provider.left.wait(10)
        assert delete(client)
        assert (len(provider.heard), wire.connections) == (2, 2)


def test_what_took_the_place_of_an_idle_connection_is_a_fresh_one():
    def script(connection, at):
        if at == (1, 1):
            connection.sendall(OK)
        return "close"

    with serving(script) as (client, provider, wire):
        assert delete(client)
        assert provider.left.wait(10)
        assert not failure(client).permanent
        assert (len(provider.heard), wire.connections) == (2, 2)


# Connections are kept and given back

ANSWERS = [
    (OK, True),
    (answer(200), True),
    (b"HTTP/1.1 204 x\r\n\r\n", True),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n", True),
    (answer(200, gzip.compress(b"{}" * 4000), "Content-Encoding: gzip"), True),
    (answer(200, b"<html>"), UpstreamFailed),
    (answer(404, GONE), False),
    (answer(404, b"<html>"), UpstreamFailed),
    (answer(302, b"", "Location: http://elsewhere.invalid"), UpstreamFailed),
    (answer(401, b"{}"), UpstreamFailed),
    (answer(500, b"oops"), UpstreamFailed),
]


def test_one_connection_serves_one_call_after_the_other_whatever_is_answered():
    def script(connection, at):
        connection.sendall(ANSWERS[(at[1] - 1) % len(ANSWERS)][0])

    with serving(script) as (client, _, wire):
        for _, result in ANSWERS * 3:
            if result is UpstreamFailed:
                failure(client)
            else:
                assert delete(client) is result
        assert wire.connections == 1


def test_an_answer_that_closes_the_connection_is_believed():
    def script(connection, _):
        connection.sendall(answer(200, b"{}", "Connection: close"))
        return "close"

    with serving(script) as (client, _, wire):
        assert delete(client)
        assert delete(client)
        assert wire.connections == 2


def test_a_connection_whose_answer_says_its_length_in_two_ways_serves_no_other_call():
    doubtful = b"HTTP/1.1 200 x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"

    def script(connection, _):
        connection.sendall(doubtful + b"2\r\n{}\r\n0\r\n\r\n")

    with serving(script) as (client, _, wire):
        assert delete(client)
        assert delete(client)
        assert wire.connections == 2


def test_a_connection_whose_answer_breaks_off_in_nonsense_serves_no_other_call():
    def script(connection, _):
        connection.sendall(
            b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n"
        )

    with serving(script) as (client, _, wire):
        for _ in range(2):
            assert failure(client).status == 500
        assert wire.connections == 2


def test_headers_of_one_name_are_one_and_no_more_of_a_body_is_wanted_than_asked_for():
    received = transport.Answer()
    received.take(b"HTTP/1.1 200 x\r\nVia: a\r\nVia: b\r\nContent-Length: 9\r\n\r\nabc")
    assert received.header("via") == "a, b"
    assert (received.wants(4), received.wants(3)) == (True, False)


def test_a_head_without_end_is_no_answer():
    received = transport.Answer()
    received.take(b"HTTP/1.1 200 x\r\nX: ")
    with pytest.raises(transport.NoAnswer, match=r"^no connection \(the head .+ has no end\)$"):
        received.take(b"a" * transport.MOST_HEAD)


@pytest.mark.parametrize("value", ["a\rX-Other: b", "a\nX-Other: b"])
def test_no_header_can_smuggle_in_another(value):
    with pytest.raises(ValueError, match=r"^a line break in a header$"):
        transport._head("DELETE / HTTP/1.1", {"X-Request-ID": value})


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("framing", [b"Content-Length: 99999999999", b"Transfer-Encoding: chunked"])
def test_no_more_of_a_huge_body_is_read_than_a_message_needs(status, framing):
    sent = []

    def script(connection, at):
        connection.sendall(b"HTTP/1.1 %d x\r\n%s\r\n\r\n" % (status, framing))
        for _ in range(10_000):
            connection.sendall(b"10000\r\n" + b"{" * 65536 + b"\r\n")
            sent.append(65536)

    with serving(script) as (client, provider, _):
        if status == 200:
            assert delete(client)
        else:
            assert failure(client).permanent is (status == 404)
        assert provider.left.wait(10)
        assert sum(sent) < 100_000_000  # the rest of 655 MB found nobody


@pytest.mark.parametrize("beginning", [b"2\r\n{}\r\n0\r\nX: ", b"2;extension="])
def test_what_has_no_end_after_the_head_is_not_read_until_the_deadline(beginning):
    sent = []

    def script(connection, _):
        connection.sendall(b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n" + beginning)
        for _ in range(1000):
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    with serving(script) as (client, provider, _):
        assert not failure(client).permanent, "its body never came"
        assert provider.left.wait(10)
    assert sum(sent) < 20_000_000


def test_a_body_that_swells_when_unpacked_is_not_unpacked_whole():
    bomb = answer(404, gzip.compress(b"[" * 50_000_000, 1), "Content-Encoding: gzip")
    with serving(lambda connection, _: connection.sendall(bomb)) as (client, _, _):
        tracemalloc.start()
        try:
            assert failure(client).permanent
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


class Echo:
    """Tells of each thing by its number: even ones are gone. Waits until all are asked for."""

    def __init__(self, at_once: int) -> None:
        self._all_here = threading.Barrier(at_once)

    def __call__(self, connection, _):
        while request := hear(connection):
            self._all_here.wait(30)
            number = int(re.search(rb"/things/(\d+) ", request)[1])
            connection.sendall(OK if number % 2 else answer(404, GONE))


def test_many_threads_share_a_client_and_each_gets_its_own_answer():
    with Wire(Echo(at_once=32)) as wire, ThreadPoolExecutor(32) as pool:
        client = upstream(wire.url)
        for _ in range(5):
            removed = list(pool.map(lambda n: delete(client, str(n)), range(32)))
            assert removed == [bool(n % 2) for n in range(32)]
        assert wire.connections == 32


def test_two_hundred_greenlets_share_a_client_under_gevent():
    script = """
from gevent import monkey; monkey.patch_all()
import gevent
from test_upstream_connections import Echo, Wire, delete, upstream
with Wire(Echo(at_once=200)) as wire:
    client = upstream(wire.url)
    for _ in range(3):
        calls = [gevent.spawn(delete, client, str(n)) for n in range(200)]
        gevent.joinall(calls, raise_error=True)
        assert [call.value for call in calls] == [bool(n % 2) for n in range(200)]
    print(wire.connections)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ran.stdout.strip(), ran.returncode) == ("200", 0), ran.stderr


# The way to the provider


def test_a_proxy_of_the_environment_is_used_and_is_given_what_it_asks_for(monkeypatch):
    with serving(lambda connection, _: connection.sendall(OK)) as (_, proxy, wire):
        monkeypatch.setenv("HTTP_PROXY", f"http://ada:hunter2@127.0.0.1:{wire.port}")
        client = upstream("http://provider.invalid/v1")
        assert delete(client)
        assert delete(client)
        assert wire.connections == 1
    head = proxy.heard[1].decode()
    assert head.startswith("DELETE http://provider.invalid/v1/things/t-1 HTTP/1.1\r\n")
    assert f"X-API-KEY: {KEY}\r\n" in head
    assert "Proxy-Authorization: Basic YWRhOmh1bnRlcjI=\r\n" in head


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "localhost,127.0.0.1"])
def test_no_proxy_is_heeded(monkeypatch, exempt):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exempt)
    with serving(lambda connection, _: connection.sendall(OK)) as (client, provider, _):
        assert delete(client)
        assert provider.heard[0].startswith(b"DELETE /things/t-1 HTTP/1.1\r\n")
        assert b"content-" not in provider.heard[0].lower()  # it has no body


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_a_failure_to_be_tried_again_and_its_password_is_not_told(
    monkeypatch, scheme
):
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", "http://ada:hunter2@127.0.0.1:1")
    failed = failure(upstream(f"{scheme}://provider.invalid"))
    assert not failed.permanent
    assert "hunter2" not in str(failed)


def test_the_ca_bundle_of_the_environment_is_trusted_and_its_connection_kept(
    certificate, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(lambda connection, _: connection.sendall(OK), server_side(certificate)) as (
        client,
        _,
        wire,
    ):
        assert delete(client)
        assert delete(client)
        assert wire.connections == 1


def test_a_certificate_that_nobody_vouches_for_is_a_failure_and_nothing_is_sent(certificate):
    with serving(lambda connection, _: connection.sendall(OK), server_side(certificate)) as (
        client,
        provider,
        _,
    ):
        failed = failure(client)
        assert not failed.permanent
        assert "certificate: self-signed certificate" in str(failed)
        assert provider.left.wait(10)
        assert provider.heard == []


def test_a_ca_bundle_that_is_not_there_is_told_by_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError) as told:
        upstream("https://provider.invalid")
    assert str(told.value) == (
        "REQUESTS_CA_BUNDLE, or CURL_CA_BUNDLE, must name a file or a folder of certificates"
    )
    upstream("http://provider.invalid")  # needs none


def test_a_ca_bundle_may_be_a_folder(certificate, monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with serving(lambda connection, _: connection.sendall(OK), server_side(certificate)) as (
        client,
        *_,
    ):
        assert "its certificate: self-signed" in str(failure(client))


def test_a_name_that_ends_in_the_roots_dot_has_the_certificate_of_the_one_without(
    certificate, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    named(monkeypatch, "127.0.0.1")
    with serving(lambda connection, _: connection.sendall(OK), server_side(certificate)) as (
        _,
        _,
        wire,
    ):
        assert delete(upstream(f"https://localhost.:{wire.port}"))
        elsewhere = failure(upstream(f"https://provider.example:{wire.port}"))
        assert str(elsewhere).endswith(
            "its certificate: Hostname mismatch; check REQUESTS_CA_BUNDLE)"
        )


def test_the_clock_runs_under_tls_too(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    script = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with serving(script, server_side(certificate)) as (client, _, _), deadline(1):
        assert "no answer within" in str(failure(client))


def test_a_handshake_that_hangs_ends_by_the_clock():
    with Wire(lambda *_: time.sleep(60)) as wire, deadline(0.4):
        assert not failure(upstream(wire.url.replace("http:", "https:"))).permanent


class Proxy:
    """Lets whoever asks with CONNECT through to one port, and writes down all it sees."""

    def __init__(self, port: int, tls=None):
        self.seen: list[bytes] = []
        self._port = port
        self._tls = tls

    def __call__(self, connection, _):
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        self.seen.append(hear(connection))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._port)) as inner:
            threading.Thread(target=self._relay, args=(inner, connection), daemon=True).start()
            self._relay(connection, inner)

    def _relay(self, source, target):
        with suppress(OSError):  # the other direction has closed both
            while data := source.recv(65536):
                self.seen.append(data)
                target.sendall(data)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_tls_goes_through_a_proxy_that_never_sees_the_key(scheme, certificate, monkeypatch):
    tls = server_side(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(lambda connection, _: connection.sendall(OK), tls) as (_, provider, wire):
        proxy = Proxy(wire.port, tls if scheme == "https" else None)
        with Wire(proxy) as proxied:
            monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://ada:hunter2@localhost:{proxied.port}")
            client = upstream(f"https://localhost:{wire.port}/v1")
            assert delete(client)
            assert delete(client)
            assert (proxied.connections, wire.connections) == (1, 1)
    assert proxy.seen[0].startswith(f"CONNECT localhost:{wire.port} HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic YWRhOmh1bnRlcjI=\r\n" in proxy.seen[0]
    assert KEY.encode() not in b"".join(proxy.seen)
    assert f"X-API-KEY: {KEY}".encode() in provider.heard[0]
    assert b"Proxy-Authorization" not in provider.heard[0]


def test_a_proxy_that_refuses_is_a_failure_that_tells_its_status(monkeypatch):
    with serving(lambda connection, _: connection.sendall(answer(407))) as (_, proxy, wire):
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:hunter2@127.0.0.1:{wire.port}")
        failed = failure(upstream("https://provider.invalid"))
    assert (failed.status, failed.permanent) == (None, False)
    assert str(failed) == "Example: thing delete: no connection (the proxy answered 407)"
    assert len(proxy.heard) == 1


def test_a_proxy_that_sends_elsewhere_is_a_failure_too(monkeypatch):
    with serving(lambda connection, _: connection.sendall(answer(300))) as (_, _, wire):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{wire.port}")
        assert "the proxy answered 300" in str(failure(upstream("https://provider.invalid")))


@pytest.mark.parametrize(
    ("provider", "authority"),
    [
        ("provider.invalid", "provider.invalid:443"),
        ("[2001:db8::1]", "[2001:db8::1]:443"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
    ],
)
def test_a_proxy_is_asked_for_a_host_and_a_port_always(provider, authority, monkeypatch):
    """RFC 9110, section 9.3.6."""
    with serving(lambda connection, _: connection.sendall(answer(403))) as (_, proxy, wire):
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{wire.port}")
        failure(upstream(f"https://{provider}/v1"))
    line, host, *_ = proxy.heard[0].decode().split("\r\n")
    assert (line, host) == (f"CONNECT {authority} HTTP/1.1", f"Host: {authority}")


def test_without_tls_to_the_provider_there_may_be_tls_to_the_proxy(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    tls = server_side(certificate)
    with serving(lambda connection, _: connection.sendall(OK), tls) as (_, proxy, wire):
        monkeypatch.setenv("HTTP_PROXY", f"https://localhost:{wire.port}")
        assert delete(upstream("http://provider.invalid/v1"))
    assert proxy.heard[0].startswith(b"DELETE http://provider.invalid/v1/things/t-1 HTTP/1.1\r\n")


def test_a_proxys_certificate_is_of_the_proxys_name(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    named(monkeypatch, "127.0.0.1")
    tls = server_side(certificate)
    with serving(lambda connection, _: connection.sendall(OK), tls) as (_, proxy, wire):
        monkeypatch.setenv("HTTP_PROXY", f"https://proxy.example:{wire.port}")
        assert "Hostname mismatch" in str(failure(upstream("http://provider.invalid/v1")))
        assert proxy.left.wait(10)
    assert proxy.heard == []


def test_a_proxy_that_drips_ends_by_the_clock(monkeypatch):
    with serving(drip(b"HTTP/1.1 200 x\r\nX-Slow: ")) as (_, _, wire), deadline(0.4):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{wire.port}")
        assert "no connection within" in str(failure(upstream("https://provider.invalid")))


@pytest.mark.parametrize("value", ["ftp://127.0.0.1:1", "socks9://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_told_at_the_start(value, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(ConfigError) as told:
        upstream("http://provider.invalid")
    assert str(told.value) == (
        "the proxy of the environment must look like http://proxy.example:3128"
    )


def test_a_socks_proxy_without_what_it_needs_is_told_at_the_start(monkeypatch):
    monkeypatch.setattr(transport, "find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError) as told:
        upstream("http://provider.invalid")
    assert str(told.value) == "the environment names a SOCKS proxy: pip install '.[socks]'"


class Socks:
    """A SOCKS proxy (RFC 1928, 1929), which is the provider too."""

    def __init__(self):
        self.heard: list[bytes] = []

    def __call__(self, connection, _):
        asked = connection.recv(99)
        if asked[0] == 5:
            method = asked[-1:]
            connection.sendall(b"\x05" + method)
            if method == b"\x02":
                self.heard.append(connection.recv(99))
                connection.sendall(b"\x01\0")
            asked = connection.recv(99)
        self.heard.append(asked)
        connection.sendall(b"\x05\0\0\x01" if asked[0] == 5 else b"\0\x5a")
        connection.sendall(bytes(6))
        self.heard.append(hear(connection))
        connection.sendall(OK)


SIGNED_ON = b"\x01\x03ada\x07hunter2"
TO_A_NAME = b"\x05\x01\0\x03\x10provider.invalid\0\x50"
TO_AN_ADDRESS = b"\x05\x01\0\x01\x7f\0\0\x01\0\x50"


@pytest.mark.parametrize(
    ("proxy", "provider", "heard"),
    [
        ("socks5h://ada:hunter2@", "provider.invalid", [SIGNED_ON, TO_A_NAME]),
        ("socks5://", "127.0.0.1", [TO_AN_ADDRESS]),
        ("socks4a://", "provider.invalid", [b"\x04\x01\0\x50\0\0\0\x01\0provider.invalid\0"]),
        ("socks4://", "127.0.0.1", [b"\x04\x01\0\x50\x7f\0\0\x01\0"]),
    ],
)
def test_a_socks_proxy_is_used_and_looks_names_up_where_it_is_asked_to(
    proxy, provider, heard, monkeypatch
):
    with Wire(socks := Socks()) as wire:
        monkeypatch.setenv("ALL_PROXY", f"{proxy}127.0.0.1:{wire.port}")
        assert delete(upstream(f"http://{provider}/v1"))
    *before, request = socks.heard
    assert before == heard
    assert request.startswith(b"DELETE /v1/things/t-1 HTTP/1.1\r\n")


def test_a_socks_proxy_that_says_nothing_ends_by_the_clock(monkeypatch):
    with Wire(lambda *_: time.sleep(60)) as wire, deadline(0.4):
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{wire.port}")
        assert not failure(upstream("http://provider.invalid")).permanent


# What went wrong, in words that tell no host


def unnamed(*_, **__):
    raise socket.gaierror(-2, "Name or service not known: provider.example")


def test_a_failure_says_what_went_wrong_and_tells_no_host(monkeypatch):
    with Wire(lambda connection, _: connection.sendall(OK)) as wire:
        spoken = failure(upstream(f"https://127.0.0.1:{wire.port}"))
    assert str(spoken).endswith("no connection (tls: wrong_version_number)")
    refused = failure(upstream("http://127.0.0.1:1"))
    assert str(refused).endswith("no connection (connection refused)")
    monkeypatch.setattr(socket, "getaddrinfo", unnamed)
    unknown = failure(upstream("http://provider.example"))
    assert str(unknown).endswith("no connection (unknown name)")


# Names


def named(monkeypatch, *addresses):
    """Let every name have these addresses."""

    def look_up(host, port, *args, **kwargs):
        if host in addresses:
            return real(host, port, *args, **kwargs)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_the_next_address_is_tried_when_one_refuses(monkeypatch):
    with serving(lambda connection, _: connection.sendall(OK)) as (_, provider, wire):
        named(monkeypatch, "127.0.0.2", "127.0.0.1")
        client = upstream(f"http://provider.example:{wire.port}")
        assert delete(client)
    assert f"Host: provider.example:{wire.port}\r\n".encode() in provider.heard[0]


def test_an_address_that_says_nothing_leaves_the_next_one_its_time(monkeypatch):
    with serving(lambda connection, _: connection.sendall(OK)) as (_, _, wire):
        named(monkeypatch, "127.0.0.2", "127.0.0.1")
        client = upstream(f"http://provider.example:{wire.port}")
        with silence("127.0.0.2", wire.port), deadline(2):
            assert delete(client)


def test_a_name_without_an_address_is_a_failure_to_be_tried_again(monkeypatch):
    named(monkeypatch)
    failed = failure(upstream("http://provider.example"))
    assert "no connection (OSError)" in str(failed)
    assert not failed.permanent


def test_without_a_thread_to_look_a_name_up_in_it_is_a_failure_to_be_tried_again(monkeypatch):
    """As gevent says it."""

    def look_up(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    failed = failure(upstream("http://provider.example"))
    assert "no connection (can't start new thread)" in str(failed)
    assert not failed.permanent


def test_an_ipv6_address_is_a_host_too():
    with Wire(Provider(lambda connection, _: connection.sendall(OK)), host="::1") as wire:
        assert delete(upstream(f"http://[::1]:{wire.port}/v1"))


def test_a_name_in_any_script_is_asked_for_as_dns_knows_it(monkeypatch):
    with serving(lambda connection, _: connection.sendall(OK)) as (_, provider, wire):
        named(monkeypatch, "127.0.0.1")
        client = upstream("", base_url=f"http://bücher.example:{wire.port}/v1")
        assert delete(client)
    assert f"Host: xn--bcher-kva.example:{wire.port}\r\n".encode() in provider.heard[0]


# What comes after an answer is not the next one


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("beyond", [answer(500), b"HTTP/1.1 200 x\r\n", b"junk", b"\r\nx"])
def test_what_comes_after_an_answer_is_not_the_next_calls(
    beyond, later, tls, certificate, monkeypatch
):
    answered, sent = threading.Event(), threading.Event()

    def script(connection, at):
        connection.sendall(OK)
        if at == (1, 1):
            assert not later or answered.wait(10)
            connection.sendall(beyond)
            sent.set()

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(script, server_side(certificate) if tls else None) as (client, _, wire):
        assert delete(client)
        answered.set()
        assert sent.wait(10)
        assert delete(client)
        assert wire.connections == 2


@pytest.mark.parametrize(
    "junk", [b"junk\r\n\r\n", b"HTTP/1.1 099 x\r\n\r\n", b"HTTP/1.1 0 x\r\n\r\n"]
)
def test_what_is_no_http_is_called_so(junk):
    with serving(lambda connection, _: connection.sendall(junk)) as (client, *_):
        assert str(failure(client)).endswith("no connection (what came is no HTTP)")


@pytest.mark.parametrize("kept_alive", [False, True])
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200", b"HTTP/1.1 200 x\r\n", b"HTTP/1.1 200 x\r\nA: b\r\n"]
)
def test_an_answer_that_ends_within_its_head_is_none(head, kept_alive):
    def script(connection, number):
        if kept_alive and number == (1, 1):
            return connection.sendall(OK)
        connection.sendall(head)
        return "close"

    with serving(script) as (client, provider, _), deadline(5):
        if kept_alive:
            assert delete(client) is True
        failed = failure(client)
        assert (failed.status, failed.permanent) == (None, False)
        assert str(failed).endswith(": no connection (the answer was cut short)")
        assert len(provider.heard) == 1 + kept_alive, "it was heard, so it is not sent again"


# Interim answers

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize("interim", [HINTS, HINTS + b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_an_interim_answer_is_not_the_answer_nor_is_the_real_one_left_to_the_next_call(interim):
    def script(connection, number):
        connection.sendall(interim)
        time.sleep(0.1)
        connection.sendall(answer(500) if number == (1, 2) else OK)

    with serving(script) as (client, _, wire), deadline(5):
        assert delete(client) is True
        assert failure(client).status == 500
        assert wire.connections == 1


def test_what_an_interim_answer_says_is_not_said_by_the_real_one():
    interim = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 77\r\n\r\n"
    with serving(lambda c, _: c.sendall(interim + answer(503))) as (client, *_):
        assert not failure(client).retry_after


def test_nobody_switches_protocols():
    with serving(lambda c, _: c.sendall(b"HTTP/1.1 101 x\r\n\r\n")) as (client, *_), deadline(5):
        assert (failure(client).status, failure(client).permanent) == (None, False)
