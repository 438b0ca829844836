"""The providers as they are on a bad day: the sandbox's, whose answers can go wrong on the way.

The sandbox stays the ground truth of what exists. Every DELETE that arrives is kept, with who sent
it and when it began and ended.
"""

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

from flask import Response, g, request

from puffle_accounts.demo.sandbox import Sandbox

SERVICE, RETRIERS, OPERATOR = "127.0.0.1", ("127.0.0.2", "127.0.0.3"), "127.0.0.4"
PAGE = 20  # of a list: most have several, so that a fault meets one in the middle
DRIP = 0.3  # seconds between two bytes
LONGEST = 8.0  # seconds that a provider keeps anybody waiting


@dataclass(eq=False)
class Call:
    """A DELETE at a provider: `caller` is the address by which it was reached."""

    provider: str
    resource: str
    caller: str
    request_id: str | None
    began: float
    connection: socket.socket = field(repr=False)
    ended: float | None = None
    status: int | None = None

    def is_under_way(self):
        """Whether somebody still waits for its answer."""
        return self.ended is None and not has_left(self.connection)


def has_left(connection):
    poll = select.poll()
    with suppress(ValueError):  # closed
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    return True


def redirect(_):
    return Response(status=307, headers={"Location": "/unipile/api/v1/webhooks"})


def wrong_page(_):
    """A 404 that says nothing of the resource, as a proxy's or a wrong URL's."""
    return Response("<h1>Not Found</h1>", 404)


def captive(_):
    """A page of somebody on the way, who wants to be paid first."""
    return Response("<html><h1>Welcome to our network</h1></html>", 200)


def lie(_):
    """It says that it is done, and does nothing."""
    return Response(status=204)


def slow(_):
    time.sleep(0.5)


def late(connection):
    """Deal with it though nobody waits any longer."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and not has_left(connection):
        time.sleep(0.1)


def drip(connection):
    """Send a status line that never ends."""
    until = time.monotonic() + LONGEST
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 " + b"O" * 1000:
            if time.monotonic() > until or has_left(connection):
                break
            connection.sendall(bytes([byte]))
            time.sleep(DRIP)
    return cut(connection)


def cut(connection):
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    return Response(status=503, headers={"Connection": "close"})


def half(connection):
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 204 No Content\r\nX-Ha")
    return cut(connection)


def reset(connection):
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_WR)
    return Response(status=503, headers={"Connection": "close"})


def denied(response, _):
    """It was done, and the answer says that it failed."""
    response.status_code = 500


def done_and_cut(_, connection):
    cut(connection)


#: What goes wrong before the provider does anything, and after it has.
BEFORE = {
    each.__name__: each
    for each in (redirect, wrong_page, captive, lie, slow, late, drip, cut, half, reset)
}
AFTER = {each.__name__: each for each in (denied, done_and_cut)}
#: What the sandbox can be told by itself.
OWN = ("fail", "hang", "rate-limit", "refuse", "unpaid")
TROUBLES = (*BEFORE, *AFTER, *OWN)


class Providers(Sandbox):
    """The sandbox on every loopback address, so that the address tells who calls."""

    names = {"unipile": "unipile", "instantly": "instantly", "agentmail": "agentmail"}

    def __init__(self, book):
        super().__init__("0.0.0.0")
        self.book = book
        self.page = PAGE
        self.trouble = {}
        self._open = []
        self._lock = threading.Lock()

    def environment_of(self, caller):
        """The variables that point somebody's plugins here."""
        return {n: v.replace("0.0.0.0", caller) for n, v in self.environment.items()}

    def misbehave(self, provider, trouble):
        """Let a provider have a trouble from now on, or none."""
        self.trouble[provider] = trouble
        self.behave(provider, trouble if trouble in OWN else "ok")

    def holds(self, provider, resource):
        return resource in self.resources[provider]

    def alive(self):
        """Return all that there is, as (provider, resource)."""
        return {(name, each) for own, name in self.names.items() for each in self._list(own)}

    def remove(self, provider, resource):
        self._remove(provider, resource)

    def _admit(self):
        request.get_data()  # what is left unread would pass for the connection's next request
        g.trouble = self.trouble.get(request.path.split("/")[1])
        g.connection = request.environ["werkzeug.socket"]
        if request.method == "DELETE":
            self._begin()
            if g.trouble == "lie":
                self.book.lied.add((g.call.provider, g.call.resource))
        before = BEFORE.get(g.trouble)
        answer = before(g.connection) if before else None
        return answer or super()._admit()

    def _begin(self):
        provider, quoted = request.path.split("/")[1], request.path.rpartition("/")[2]
        g.call = Call(
            self.names[provider],
            unquote(quoted),
            request.host.partition(":")[0],
            request.headers.get("X-Request-ID"),
            time.time(),
            g.connection,
        )
        with self._lock:
            self._open = [each for each in self._open if each.ended is None]
            others = [each for each in self._open if self._is_same(each, g.call)]
            self._open.append(g.call)
        self.book.called(g.call, [each for each in others if each.is_under_way()])

    @staticmethod
    def _is_same(one, other):
        """Whether two calls are of retriers, for the same orphan."""
        return (
            one.caller in RETRIERS
            and other.caller in RETRIERS
            and (one.provider, one.resource, one.request_id)
            == (other.provider, other.resource, other.request_id)
        )

    def _record(self, response):
        after = AFTER.get(g.get("trouble"))
        if after and response is not None and "recorded" not in g:
            after(response, g.connection)
        if response is not None and "call" in g:
            g.call.ended, g.call.status = time.time(), response.status_code
        super()._record(response)


class Crm(Providers):
    """One more provider, somebody else's: AgentMail's interface under another name."""

    names = {"agentmail": "crm"}
