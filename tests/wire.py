"""Providers that no HTTP library would let one write, and a client of them."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from puffle_accounts import context
from puffle_accounts.upstream import Upstream

KEY = "a-secret-of-the-tests"


def upstream(url: str, **changes) -> Upstream:
    """Return a client of an imaginary provider at this URL; its 404 is `{"code": "not_found"}`."""
    client = Upstream(
        "Example",
        **{
            "key_variable": "EXAMPLE_API_KEY",
            "base_url_variable": "EXAMPLE_BASE_URL",
            "base_url": "https://api.example.com/v1",
            "authenticate": lambda key: {"X-API-KEY": key},
            "code": "code",
            "is_gone": lambda body: body.get("code") == "not_found",
            **changes,
        },
    )
    client.configure({"EXAMPLE_API_KEY": KEY, "EXAMPLE_BASE_URL": url})
    return client


def self_signed(file: Path) -> Path:
    """Make a key and a certificate for loopback, vouched for by nobody but itself."""
    extensions = (
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
    )
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", file, "-out", file),
            *("-config", os.devnull),
            *(argument for each in extensions for argument in ("-addext", each)),
        ],
        check=True,
        capture_output=True,
    )
    return file


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let the work in this block have so many seconds, as the core does for a plugin's call."""
    token = context.deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        context.deadline.reset(token)


class Wire:
    """A TCP server on loopback: each connection is served by a function, in its own thread.

    The function is called with the connection and its number; the first one's is 1.
    """

    def __init__(
        self, serve: Callable[[socket.socket, int], object], host: str = "127.0.0.1"
    ) -> None:
        self.connections = 0
        self._serve = serve
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(
                    target=self._talk, args=(connection, self.connections), daemon=True
                ).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            self._serve(connection, number)


def hear(connection: socket.socket) -> bytes:
    """Return the next request, or nothing if the client has left."""
    heard = b""
    while (received := connection.recv(65536)) != b"":
        heard += received
        head, end, body = heard.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return heard
    return b""


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Return an answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def server_side(certificate: Path) -> ssl.SSLContext:
    """Return what a server needs to speak TLS with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
