"""A call to a provider: a socket, a clock and a parser.

The parser is `httptools`; the proxy and the CA bundle are what `requests` makes of the
environment. By construction there are no redirects, no cookies, no `.netrc` and no retries, but
for one: a kept-alive connection that turns out to have been closed is replaced.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

import certifi
import requests
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, prepend_scheme_if_needed, select_proxy
from urllib3.util.ssltransport import SSLTransport

from puffle_accounts.errors import ConfigError
from puffle_accounts.telemetry import telemetry

POOL = 512  # idle connections per provider
CONNECT_SECONDS = 3.05  # for all addresses of a name together, and again for TLS and a proxy
MOST_HEAD = 65536  # bytes, interim answers included
CHUNK = 16384  # bytes; as much as TLS hands over at once

PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

WITH_BODY = frozenset({"PATCH", "POST", "PUT"})  # some servers ask for its length: RFC 9110 §8.6

Wanted = Callable[[int], tuple[int, float]]


class NoAnswer(Exception):
    """There is no answer; the message says why, and holds no URL, no key and no password."""


class _Closed(NoAnswer):
    """The connection ended before a byte of an answer came."""


class Clock:
    """Counts down the seconds of a call, or of a part of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError: there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def at_most(self, seconds: float) -> Clock:
        """Return a clock that ends with this one, or after so many seconds."""
        return Clock(min(seconds, self._end - time.monotonic()))


class Answer:
    """What has come of an answer; `httptools` calls the methods that begin with `on_`.

    `status` is 0 until the head is complete, `body` is as it came over the wire, `whole` says
    whether it came to its end, `reusable` whether the connection can serve another call.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.whole = False
        self.reusable = False
        self._fields: dict[bytes, bytes] = {}
        self._received = 0
        self._fruitful = 0  # bytes received when the body last grew
        self._open = True
        self._parser: Any = HttpResponseParser(self)
        # What `http.client` reads too, for some servers send it.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,  # folded lines
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
            lenient_chunked_length=True,  # chunks beside a length: the chunks count
        )

    def header(self, name: str) -> str:
        """Return a header, several of one name joined with commas, or an empty text."""
        return self._fields.get(name.encode(), b"").decode("latin-1").strip()

    def take(self, data: bytes) -> None:
        """Parse what has been received; nothing is the end of the connection.

        Raises:
            NoAnswer: it ends, or is no HTTP, and there is no status yet.
        """
        if not data:
            self._end()
        elif self._received < 5:  # a server that writes "http/1.1" means it
            begin = 5 - self._received
            data = data[:begin].upper() + data[begin:]
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._open = self.reusable = False
            if not self.status:
                raise NoAnswer("no connection (what came is no HTTP)") from None
        if not self.status and self._received > MOST_HEAD:
            raise NoAnswer("no connection (the head of the answer has no end)")
        if self._received - self._fruitful > MOST_HEAD:  # a trailer, or a chunk's size, without end
            self._open = self.reusable = False

    def wants(self, most: int) -> bool:
        """Return whether there is more to come of the first `most` bytes of the body."""
        return self._open and len(self.body) < most

    def finish(self, most: int) -> Answer:
        """Let go of the parser, which holds this answer, and of what is beyond `most` bytes."""
        self._parser = None
        del self.body[most:]
        return self

    def _end(self) -> None:
        if not self.status:
            raise NoAnswer("no connection (the answer was cut short)")
        framed = self.header("content-length") or "chunked" in self.header("transfer-encoding")
        self.whole = self._open and not framed
        self._open = self.reusable = False

    def on_message_begin(self) -> None:
        self.reusable = False  # the second answer to one request
        if not self.status:
            self._fields.clear()  # of an interim answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            name = name.lower()
            before = self._fields.get(name)
            self._fields[name] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100 or status == 101:
            raise ValueError(status)
        if status >= 200 and not self.status:
            self.status = status

    def on_body(self, data: bytes) -> None:
        if self._open:
            self.body += data
            self._fruitful = self._received

    def on_message_complete(self) -> None:
        if self.status and self._open:
            doubtful = {b"content-length", b"transfer-encoding"} <= self._fields.keys()
            self.reusable = self._parser.should_keep_alive() and not doubtful
            self.whole = True
            self._open = False


class _Wire:
    """A socket that keeps to a clock, however slowly it drips. TLS goes on top of it.

    A socket's own time-out starts anew with each byte, and gevent's TLS with each piece of a
    record. Without a clock it does not wait at all.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.clock: Clock | None = None
        self._sock = sock
        self.close = sock.close

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._sock.settimeout(self.clock.left() if self.clock else 0)
        return self._sock.recv(size)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        if data:
            self._sock.settimeout(self.clock.left() if self.clock else 0)
            self._sock.sendall(data)


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._wire = _Wire(sock)
        self._stream: Any = self._wire
        self.close = self._wire.close

    def secure(self, context: ssl.SSLContext, host: str, clock: Clock) -> None:
        """Speak TLS from now on, inside the one that is spoken already if there is one."""
        self._wire.clock = clock
        self._stream = SSLTransport(self._stream, context, host)

    def ask(self, request: bytes, clock: Clock, wanted: Wanted) -> Answer:
        """Send a request and return its answer, and of its body as much as is wanted."""
        self._wire.clock = clock
        received = b""
        with suppress(ConnectionError, ssl.SSLEOFError):
            with suppress(ConnectionError):  # it may have answered all the same
                self._stream.sendall(request)
            received = self._stream.recv(CHUNK)
        if not received:
            raise _Closed("no connection (closed before an answer)")
        answer = Answer()
        answer.take(received)
        while not answer.status:
            answer.take(self._stream.recv(CHUNK))
        most, seconds = wanted(answer.status)
        if answer.wants(most):
            self._wire.clock = clock.at_most(seconds)
            with suppress(OSError):  # what has come has to do
                while answer.wants(most):
                    answer.take(self._stream.recv(CHUNK))
        return answer.finish(most)

    def is_idle(self) -> bool:
        """Return whether the peer has said nothing since its answer, not even good-bye."""
        self._wire.clock = None
        try:
            self._stream.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class Transport:
    """The connections for calls below one base URL. Shared by threads and greenlets.

    Args:
        base_url: with a path or without.
        headers: of every request.
        query: of every request, quoted; it may hold a key, so it is told to nobody else.

    Raises:
        ConfigError: a proxy or a CA bundle of the environment cannot be used.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], query: str = "") -> None:
        url = urlsplit(requests.Request("GET", base_url).prepare().url or "")
        settings = requests.Session().merge_environment_settings(base_url, {}, True, None, None)
        self._url = url
        self._query = query
        self._proxy = _proxy(select_proxy(base_url, settings["proxies"]))
        asked = HTTPAdapter().proxy_headers(self._proxy.geturl()) if self._proxy else {}
        self._tunnel: bytes | None = None
        self._target = url.path.rstrip("/")
        self._base = f"{url.scheme}://{_authority(url)}{self._target}"
        self._address = _address(url)
        if self._proxy and self._proxy.scheme in ("http", "https"):
            if url.scheme == "https":
                authority = _authority(url, always_port=True)
                self._tunnel = _head(f"CONNECT {authority} HTTP/1.1", {"Host": authority, **asked})
                asked = {}
            else:
                self._target = f"http://{_authority(url)}{self._target}"
        own = {"Host": _authority(url), "Accept-Encoding": "identity"}
        self._headers = {**own, **headers, **asked}
        schemes = {url.scheme, self._proxy.scheme if self._proxy else ""}
        self._tls = _trust(settings["verify"]) if "https" in schemes else None
        self._idle: list[_Connection] = []  # the last to come is the first to go: the freshest

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        clock: Clock,
        wanted: Wanted,
    ) -> Answer:
        """Send a request and return its answer.

        Args:
            path: below the base URL, quoted, beginning with a slash, and its own query.
            headers: of this request alone.
            body: `None` if the request has none.
            clock: for all of it.
            wanted: given the status, returns how many bytes of the body are of interest and how
                many seconds they may take.

        Raises:
            NoAnswer: there is none.
        """
        with telemetry.request(method, self._base + path, *self._address) as span:
            fields = {**self._headers, **headers, **span.headers}
            if body is not None or method in WITH_BODY:
                fields["Content-Length"] = str(len(body or b""))
            answer = self._send(method, path, fields, body or b"", clock, wanted)
            telemetry.answered(span, answer.status)
            return answer

    def _send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str],
        body: bytes,
        clock: Clock,
        wanted: Wanted,
    ) -> Answer:
        if self._query:
            path += f"{'&' if '?' in path else '?'}{self._query}"
        request = _head(f"{method} {self._target}{path} HTTP/1.1", fields) + body
        try:
            kept = self._kept()
            if kept:
                with suppress(_Closed):
                    return self._ask(kept, request, clock, wanted)
            return self._ask(self._connect(clock), request, clock, wanted)
        except TimeoutError:
            raise NoAnswer(f"no answer within {clock.seconds:.1f} s") from None
        except (OSError, UnicodeError) as error:
            raise NoAnswer(f"no connection ({_why(error)})") from None

    def _ask(self, connection: _Connection, request: bytes, clock: Clock, wanted: Wanted) -> Answer:
        try:
            answer = connection.ask(request, clock, wanted)
        except BaseException:
            connection.close()
            raise
        if answer.reusable and len(self._idle) < POOL:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> _Connection | None:
        with suppress(IndexError):
            while connection := self._idle.pop():
                if connection.is_idle():
                    return connection
                connection.close()
        return None

    def _connect(self, clock: Clock) -> _Connection:
        clock.left()  # if it is over, it is not the connecting that took so long
        step = clock.at_most(CONNECT_SECONDS)
        try:
            connection = _Connection(self._dial(step))
            try:
                self._prepare(connection, clock.at_most(CONNECT_SECONDS))
            except BaseException:
                connection.close()
                raise
        except TimeoutError:
            raise NoAnswer(f"no connection within {step.seconds:.1f} s") from None
        except RuntimeError as error:  # gevent looks a name up in a thread, and none is left
            raise NoAnswer(f"no connection ({error})") from None
        return connection

    def _dial(self, clock: Clock) -> socket.socket:
        if self._proxy and self._proxy.scheme.startswith("socks"):
            return _dial_socks(self._proxy, _address(self._url), clock)
        return _dial(_address(self._proxy or self._url), clock)

    def _prepare(self, connection: _Connection, clock: Clock) -> None:
        """Let the connection lead to the provider: TLS to the proxy, its tunnel, TLS."""
        if self._tls and self._proxy and self._proxy.scheme == "https":
            connection.secure(self._tls, _server_name(self._proxy), clock)
        if self._tunnel:
            answer = connection.ask(self._tunnel, clock, lambda status: (0, 0))
            if not 200 <= answer.status < 300:
                raise NoAnswer(f"no connection (the proxy answered {answer.status})")
        if self._tls and self._url.scheme == "https":
            connection.secure(self._tls, _server_name(self._url), clock)


def _head(line: str, fields: Mapping[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields.items())]
    if any("\r" in each or "\n" in each for each in lines):
        raise ValueError("a line break in a header")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _address(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or PORTS[url.scheme]


def _authority(url: SplitResult, always_port: bool = False) -> str:
    host, port = _address(url)
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if always_port or port != PORTS[url.scheme] else host


def _server_name(url: SplitResult) -> str:
    return _address(url)[0].rstrip(".")  # certificates do without the root's dot


def _dial(address: tuple[str, int], clock: Clock) -> socket.socket:
    """Connect to the first address of a name that takes it; none eats the others' time."""
    found: list[Any] = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for after, (*_, where) in zip(reversed(range(len(found))), found, strict=True):
        try:
            sock = socket.create_connection(where[:2], clock.left() / (after + 1))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError:
            if not after:
                raise
    raise OSError("a name without an address")


def _dial_socks(proxy: SplitResult, address: tuple[str, int], clock: Clock) -> socket.socket:
    import socks

    name, password = get_auth_from_url(proxy.geturl())
    sock: socket.socket = socks.create_connection(
        address,
        clock.left(),
        proxy_type=socks.SOCKS5 if "5" in proxy.scheme else socks.SOCKS4,
        proxy_addr=proxy.hostname,
        proxy_port=proxy.port or PORTS[proxy.scheme],
        proxy_rdns=proxy.scheme in ("socks4a", "socks5h"),
        proxy_username=name or None,
        proxy_password=password or None,
    )
    return sock


def _proxy(value: str | None) -> SplitResult | None:
    if not value:
        return None
    url: SplitResult = urlsplit(prepend_scheme_if_needed(value, "http"))
    if url.scheme not in PORTS or not url.hostname:
        raise ConfigError("the proxy of the environment must look like http://proxy.example:3128")
    if url.scheme.startswith("socks") and not find_spec("socks"):
        raise ConfigError("the environment names a SOCKS proxy: pip install '.[socks]'")
    return url


def _trust(bundle: Any) -> ssl.SSLContext:
    bundle = certifi.where() if bundle is True else bundle
    try:
        return ssl.create_default_context(
            **{"capath" if os.path.isdir(bundle) else "cafile": bundle}
        )
    except OSError:
        raise ConfigError(
            "REQUESTS_CA_BUNDLE, or CURL_CA_BUNDLE, must name a file or a folder of certificates"
        ) from None


def _why(error: Exception) -> str:
    """Return what went wrong in words of ours or of the system: an error's own may tell hosts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate: {error.verify_message.partition(',')[0]}; check REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'closed'}".lower()
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "unknown name"
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else type(error).__name__
