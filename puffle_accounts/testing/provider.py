"""A provider on loopback that answers as it is told, and misbehaves by a word."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from puffle_accounts.testing.exchange import HOST, Handler, Reply, Request, Server

__all__ = ["FakeProvider", "Reply", "Request"]


class FakeProvider:
    """An HTTP server on loopback that gives the answers it was told, the last one for ever.

    It says 200 until it is told. A context manager; `url` is where it listens, `requests` what
    it was asked. Instead of an answer it may be told to `reset`, `break_off`, `drip`, `cut`,
    `redirect`, `hang` or send `garbage`, each of which takes its turn like an answer, or to
    `refuse` from now on. All of these return the provider, so that they can be chained.

    Args:
        port: to listen on, 0 for one that is free.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self._turns: deque[Callable[[Handler], None]] = deque()
        self._turn: Callable[[Handler], None] = _as_told_nothing
        self._server = Server(port, self._serve)
        self._thread: threading.Thread | None = None
        self._taken: socket.socket | None = None
        self.url = f"http://{HOST}:{self._server.server_port}"

    def answer(
        self, status: int, body: Any = None, delay: float = 0.0, **headers: str
    ) -> FakeProvider:
        """Add the next answer.

        Args:
            status: HTTP status.
            body: bytes as they are, anything else as JSON, `None` for none.
            delay: seconds to wait before answering.
            headers: of the answer, with `_` for `-`.
        """
        return self.reply(Reply(status, body, _named(headers), delay))

    def reply(self, *replies: Reply) -> FakeProvider:
        """Add the next answers."""
        for reply in replies:
            self._then(partial(Handler.send, reply=reply))
        return self

    def redirect(self, status: int = 302, to: str | None = None) -> FakeProvider:
        """Point elsewhere next: to a URL, or to another path of this provider."""
        return self.answer(status, Location=to or f"{self.url}/elsewhere")

    def cut(self, status: int = 200, body: Any = None, **headers: str) -> FakeProvider:
        """Answer next, but close the connection in the middle of the body."""
        reply = Reply(status, {"a": "body"} if body is None else body, _named(headers))
        return self._then(partial(Handler.send, reply=reply, of_body=len(reply.raw) // 2))

    def reset(self) -> FakeProvider:
        """Reset the connection next, once the request has been read."""
        return self._then(Handler.reset)

    def break_off(self) -> FakeProvider:
        """Close the connection next, without an answer."""
        return self._then(Handler.end)

    def drip(self) -> FakeProvider:
        """Send an answer next that comes byte by byte and never ends."""
        return self._then(Handler.drip)

    def hang(self) -> FakeProvider:
        """Send nothing next, and keep the connection."""
        return self._then(Handler.hang)

    def garbage(self) -> FakeProvider:
        """Send next what is no HTTP."""
        return self._then(Handler.garbage)

    def refuse(self) -> FakeProvider:
        """Refuse every connection from now on: nobody listens."""
        self._stop()
        if self._taken is None:
            self._taken = socket.socket()  # bound, so that nobody else listens there either
            self._taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._taken.bind(self._server.server_address[:2])
        return self

    def forget(self) -> FakeProvider:
        """Forget what it was asked and told: it says 200 again."""
        self.requests.clear()
        self._turns.clear()
        self._turn = _as_told_nothing
        return self

    def __enter__(self) -> FakeProvider:
        if not self._server.ended.is_set():
            serve = self._server.serve_forever
            self._thread = threading.Thread(target=serve, args=(0.005,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        if self._taken is not None:
            self._taken.close()

    def _then(self, turn: Callable[[Handler], None]) -> FakeProvider:
        self._turns.append(turn)
        return self

    def _stop(self) -> None:
        if self._server.ended.is_set():
            return
        self._server.ended.set()
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: Handler, request: Request) -> None:
        if self._server.ended.is_set():  # on a connection that was kept
            handler.end()
            return
        self.requests.append(request)
        with suppress(IndexError):
            self._turn = self._turns.popleft()
        self._turn(handler)


def _as_told_nothing(handler: Handler) -> None:
    handler.send(Reply(200))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
