"""A request and its reply, and the server behind a fake provider."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
PACE = 0.05  # seconds between two bytes of an answer that drips
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Request:
    """What a provider was asked; `path` is as it came over the wire, query included."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of a provider.

    Args:
        status: HTTP status.
        body: bytes as they are, anything else as JSON, `None` for none.
        headers: of the answer; a JSON body has its `Content-Type` unless they say otherwise.
        delay: seconds to wait before answering.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    delay: float = 0.0

    @property
    def raw(self) -> bytes:
        """The body as it is sent."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Server(ThreadingHTTPServer):
    """Lets a function serve each request; `ended` says that nobody is to be answered any more."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, serve: Callable[[Handler, Request], None]) -> None:
        self.serve = serve
        self.ended = threading.Event()
        super().__init__((HOST, port), Handler)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that has left is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection, and the ways to answer on it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body that waits for its head to be acknowledged takes 40 ms
    server: Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._do
        raise AttributeError(name)

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        self.server.serve(self, request)

    def log_message(self, *_: Any) -> None:
        """Nothing: `FakeProvider.requests` is the log."""

    def send(self, reply: Reply, of_body: int | None = None) -> None:
        """Answer, with a part of the body alone if one is given."""
        if reply.delay and self.server.ended.wait(reply.delay):
            self.end()
            return
        self.send_response(reply.status)
        kind = {} if isinstance(reply.body, bytes) or reply.body is None else JSON
        for name, value in {
            "Content-Length": str(len(reply.raw)),
            **kind,
            **reply.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.raw[:of_body])
        if of_body is not None:
            self.end()

    def end(self) -> None:
        """Say nothing more on this connection."""
        self.close_connection = True

    def reset(self) -> None:
        """Let the other side see its connection reset."""
        no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        self.connection.close()
        self.end()

    def drip(self) -> None:
        """Send a header that never ends."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.ended.wait(PACE):
            self.wfile.write(b"x")

    def hang(self) -> None:
        """Send nothing."""
        self.server.ended.wait()
        self.end()

    def garbage(self) -> None:
        """Send what is no HTTP."""
        self.wfile.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        self.end()
