"""Stand-ins of Unipile, Instantly and AgentMail on loopback, for the demo and for tests.

They answer as the real providers do: the same envelopes for success, "already gone", a wrong key,
a wrong URL, and Instantly's refusal of an empty JSON body. Each can be told to misbehave.
"""

from __future__ import annotations

import functools
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from puffle_accounts.demo import envelopes
from puffle_accounts.demo.envelopes import PROVIDERS, provider_asked

#: What every provider can be told to do, see `Sandbox.behave`.
MODES = ("ok", "fail", "hang", "rate-limit", "refuse", "unpaid")
#: provider -> what only this one can be told to answer, by its own word for it.
OWN_MODES: dict[str, tuple[str, ...]] = {
    "unipile": ("no_client_session", "request_timeout"),
    "instantly": ("active_campaigns",),
    "agentmail": (
        "resource_deleting",
        "cannot_delete",
        "missing_permission",
        "forbidden",
        "race_condition",
    ),
}

_BASES = {"unipile": "/unipile/api/v1", "instantly": "/instantly", "agentmail": "/agentmail"}
_COLLECTIONS = (
    "/unipile/api/v1/accounts",
    "/unipile/v2/accounts",
    "/instantly/api/v2/accounts",
    "/agentmail/v0/inboxes",
)
_ASKED = "puffle_accounts.sandbox"  # in the WSGI environment


@dataclass(frozen=True)
class Call:
    """One request to a stand-in.

    `provider` is empty for a path of none of them; `path` is still quoted, and starts below the
    provider's host; `status` is None for a request left hanging; `request_id` is its X-Request-ID.
    """

    provider: str
    method: str
    path: str
    status: int | None
    request_id: str | None


class Sandbox:
    """The three providers on one loopback port; a context manager.

    `resources` is what exists at each provider, `page` how many of them a page of a list holds at
    most, `calls` every request so far. `on_call` is called
    with each of them, one at a time, before its answer is sent.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, on_call: Callable[[Call], None] | None = None
    ) -> None:
        self.resources: dict[str, set[str]] = {provider: set() for provider in PROVIDERS}
        self.page = 100
        self.calls: list[Call] = []
        self._address = (host, port)
        self._on_call = on_call
        self._modes = dict.fromkeys(PROVIDERS, "ok")
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._server: BaseWSGIServer | None = None

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and answer in daemon threads. Raises OSError if the port is taken."""
        app = _application()
        handler = type("Handler", (_Handler,), {"sandbox": self})
        # Werkzeug would end the process over a taken port, so it is given a bound socket.
        with socket.create_server(self._address, backlog=1024) as listener:
            self._server = make_server(
                *self._address, app, threaded=True, request_handler=handler, fd=listener.fileno()
            )
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection; what hangs is dropped without an answer."""
        if self._server is None:
            return
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._server = None
            self._changed.notify_all()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the plugins here. Raises RuntimeError unless it is running."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        origin = f"http://{self._address[0]}:{self._server.port}"
        urls = {f"{name.upper()}_BASE_URL": origin + base for name, base in _BASES.items()}
        return urls | {f"{name.upper()}_API_KEY": key for name, key in envelopes.KEYS.items()}

    def add(self, provider: str, resource_id: str) -> None:
        """Let a session, a warm-up account or an inbox exist at the provider."""
        with self._changed:
            self.resources[provider].add(resource_id)

    def behave(self, provider: str, mode: str) -> None:
        """Make a provider misbehave from now on, or be "ok" again.

        `mode` is one of `MODES` or of the provider's `OWN_MODES`. Under "hang" a request waits
        until the mode changes, and is then dealt with unless its client has given up meanwhile.
        Raises ValueError, naming the choices, for a provider or mode that does not exist.
        """
        if provider not in PROVIDERS:
            raise ValueError(f"no provider {provider!r}: choose from {', '.join(PROVIDERS)}")
        choices = MODES + OWN_MODES[provider]
        if mode not in choices:
            raise ValueError(f"no mode {mode!r} of {provider}: choose from {', '.join(choices)}")
        with self._changed:
            self._modes[provider] = mode
            self._changed.notify_all()

    def _remove(self, provider: str, resource_id: str) -> bool:
        with self._changed:
            held = self.resources[provider]
            if provider == "instantly" and resource_id not in held:
                same = (address for address in held if address.lower() == resource_id.lower())
                resource_id = next(same, resource_id)
            was_there = resource_id in held
            held.discard(resource_id)
            return was_there

    def _list(self, provider: str) -> list[str]:
        with self._changed:
            return sorted(self.resources[provider])

    def _admit(self) -> Response | None:
        """Answer what is answered whatever the resource; None lets the request through."""
        request.get_data()  # what is left unread would pass for the connection's next request
        provider = provider_asked()
        if not provider:
            return None
        mode = self._mode_after_hanging(provider)
        if mode is None:
            return Response(status=503, headers={"Connection": "close"})
        if mode != "ok":
            return envelopes.fault(provider, mode)
        if request.routing_exception:  # Instantly, too, finds the route before the key
            return None
        return envelopes.refusal(provider)

    def _mode_after_hanging(self, provider: str) -> str | None:
        """The mode to answer by; None if nobody is left to hear it."""
        with self._changed:
            if self._modes[provider] == "hang":
                self._record(None)
                self._changed.wait_for(lambda: not self._server or self._modes[provider] != "hang")
                if _client_has_left():
                    return None
            return self._modes[provider] if self._server else None

    def _record(self, response: Response | None) -> None:
        """Note the request in `calls`, once."""
        if "recorded" in g:
            return
        g.recorded = True
        status = None if response is None else response.status_code
        request_id = request.headers.get("X-Request-ID")
        path = envelopes.path_at_provider()
        call = Call(provider_asked(), request.method, path, status, request_id)
        with self._changed:
            self.calls.append(call)
            if self._on_call:
                self._on_call(call)


class _Handler(WSGIRequestHandler):
    """Keeps connections open and an id with %2F in one segment; werkzeug's own does neither."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sandbox: Sandbox

    def setup(self) -> None:
        super().setup()
        self.sandbox._connections.add(self.connection)

    def finish(self) -> None:
        self.sandbox._connections.discard(self.connection)
        super().finish()

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        environ["PATH_INFO"] = environ["RAW_URI"].partition("?")[0]
        environ[_ASKED] = self.sandbox
        response = Response.from_app(self.server.app, environ, buffered=True)
        self.send_response(response.status_code)
        for header in response.headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(response.get_data())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: `Sandbox.calls` is the log."""


@functools.cache
def _application() -> Flask:
    """The application of every sandbox; which one is asked stands in the request."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False

    def admit() -> Response | None:
        return _asked()._admit()

    def record(response: Response) -> Response:
        _asked()._record(response)
        return response

    def list_resources() -> Response:
        sandbox = _asked()
        ids = sandbox._list(provider_asked())
        cursor = request.args.get(envelopes.CURSORS[provider_asked()][0], "")
        limit = min(request.args.get("limit", 100, type=int), sandbox.page)
        left = [each for each in ids if each > cursor]
        return envelopes.listing(left[:limit], left[limit - 1] if len(left) > limit else None)

    def delete_resource(quoted_id: str) -> Response:
        if not _asked()._remove(provider_asked(), unquote(quoted_id)):
            return envelopes.fault(provider_asked(), "gone")
        return envelopes.deleted(unquote(quoted_id))

    def route(method: str, path: str, view: Callable[..., Response]) -> None:
        name = f"{method} {path}".replace(".", "")
        app.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)

    for collection in _COLLECTIONS:
        route("GET", collection, list_resources)
        route("DELETE", f"{collection}/<quoted_id>", delete_resource)
    route("POST", "/instantly/api/v2/accounts/warmup/disable", envelopes.disable_warmup)
    app.before_request(admit)
    app.after_request(record)
    app.register_error_handler(HTTPException, envelopes.unrouted)
    return app


def _asked() -> Sandbox:
    sandbox: Sandbox = request.environ[_ASKED]
    return sandbox


def _client_has_left() -> bool:
    # Only the end of the connection makes it readable while an answer is outstanding.
    poll = select.poll()
    poll.register(request.environ["werkzeug.socket"], select.POLLIN)
    return bool(poll.poll(0))
