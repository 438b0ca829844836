"""Stand-ins of Unipile, Instantly and AgentMail on loopback, for the demo and for tests.

They answer as the real providers do: the same envelopes for success, "already gone", a wrong key,
a wrong URL, and Instantly's refusal of an empty JSON body. Each can be told to misbehave.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

PROVIDERS = ("unipile", "instantly", "agentmail")
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

# fault -> status, and how Unipile's type, Instantly's message and AgentMail's code put it.
_FAULTS = {
    "gone": (404, "resource_not_found", "Resource not found", "not_found"),
    "fail": (500, "unexpected_error", "Something went wrong", "internal_error"),
    "rate-limit": (429, "too_many_requests", "Rate limit exceeded", "rate_limit_exceeded"),
    "refuse": (401, "missing_credentials", "Invalid API key", "unknown_api_key"),
    "unpaid": (402, "payment_required", "No active paid plan", "payment_required"),
    "no_client_session": (503, "no_client_session", "", ""),
    "request_timeout": (504, "request_timeout", "", ""),
    "active_campaigns": (400, "", "Account may be assigned to active campaigns", ""),
    "resource_deleting": (403, "", "", "resource_deleting"),
    "cannot_delete": (403, "", "", "cannot_delete"),
    "missing_permission": (403, "", "", "missing_permission"),
    "forbidden": (403, "", "", "forbidden"),
    "race_condition": (409, "", "", "race_condition"),
}
_BASES = {"unipile": "/unipile/api/v1", "instantly": "/instantly", "agentmail": "/agentmail"}
_KEYS = {provider: f"not-a-real-{provider}-key" for provider in PROVIDERS}
# provider -> the parameter that a cursor is given in, and the field that has the next one.
_CURSORS = {
    "unipile": ("cursor", "cursor"),
    "instantly": ("starting_after", "next_starting_after"),
    "agentmail": ("page_token", "next_page_token"),
}
_BORN = "2026-01-02T03:04:05.678Z"  # when everything here was made
_COLLECTIONS = (
    "/unipile/api/v1/accounts",
    "/unipile/v2/accounts",
    "/instantly/api/v2/accounts",
    "/agentmail/v0/inboxes",
)


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
        app = _application(self)
        handler = type("Handler", (_Handler,), {"connections": self._connections})
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
        return urls | {f"{name.upper()}_API_KEY": key for name, key in _KEYS.items()}

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
        provider = _provider()
        if not provider:
            return None
        mode = self._mode_after_hanging(provider)
        if mode is None:
            return Response(status=503, headers={"Connection": "close"})
        if mode != "ok":
            return _fault(provider, mode)
        if request.routing_exception:  # Instantly, too, finds the route before the key
            return None
        return _refusal(provider)

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
        call = Call(_provider(), request.method, _path_at_provider(), status, request_id)
        with self._changed:
            self.calls.append(call)
            if self._on_call:
                self._on_call(call)


class _Handler(WSGIRequestHandler):
    """Keeps connections open and an id with %2F in one segment; werkzeug's own does neither."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connections: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        self.connections.discard(self.connection)
        super().finish()

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        environ["PATH_INFO"] = environ["RAW_URI"].partition("?")[0]
        response = Response.from_app(self.server.app, environ, buffered=True)
        self.send_response(response.status_code)
        for header in response.headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(response.get_data())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: `Sandbox.calls` is the log."""


def _application(sandbox: Sandbox) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False

    @app.after_request
    def record(response: Response) -> Response:
        sandbox._record(response)
        return response

    def list_resources() -> Response:
        ids, cursor = sandbox._list(_provider()), request.args.get(_CURSORS[_provider()][0], "")
        limit = min(request.args.get("limit", 100, type=int), sandbox.page)
        left = [each for each in ids if each > cursor]
        return _listing(left[:limit], left[limit - 1] if len(left) > limit else None)

    def delete_resource(quoted_id: str) -> Response:
        if not sandbox._remove(_provider(), unquote(quoted_id)):
            return _fault(_provider(), "gone")
        return _deleted(unquote(quoted_id))

    def route(method: str, path: str, view: Callable[..., Response]) -> None:
        name = f"{method} {path}".replace(".", "")
        app.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)

    for collection in _COLLECTIONS:
        route("GET", collection, list_resources)
        route("DELETE", f"{collection}/<quoted_id>", delete_resource)
    route("POST", "/instantly/api/v2/accounts/warmup/disable", _disable_warmup)
    app.before_request(sandbox._admit)
    app.register_error_handler(HTTPException, _unrouted)
    return app


def _provider() -> str:
    """Whose path is asked for, or an empty string."""
    name = request.path.split("/")[1]
    return name if name in PROVIDERS else ""


def _path_at_provider() -> str:
    provider = _provider()
    return request.path.removeprefix(f"/{provider}") if provider else request.path


def _client_has_left() -> bool:
    # Only the end of the connection makes it readable while an answer is outstanding.
    poll = select.poll()
    poll.register(request.environ["werkzeug.socket"], select.POLLIN)
    return bool(poll.poll(0))


def _refusal(provider: str) -> Response | None:
    """What is wrong with the key or, at Instantly, with the body."""
    name, scheme = ("X-API-KEY", "") if provider == "unipile" else ("Authorization", "Bearer ")
    if request.headers.get(name) != scheme + _KEYS[provider]:
        return _fault(provider, "refuse")
    if provider == "instantly" and request.is_json and not request.get_data():
        message = "Body cannot be empty when content-type is set to 'application/json'"
        return _problem(provider, 400, message, code="FST_ERR_CTP_EMPTY_JSON_BODY")
    return None


def _listing(ids: list[str], cursor: str | None) -> Response:
    following = {_CURSORS[_provider()][1]: cursor}
    if _provider() == "agentmail":
        inboxes = [{"inbox_id": i, "email": i, "created_at": _BORN} for i in ids]
        return jsonify(count=len(ids), limit=len(ids), inboxes=inboxes, **following)
    if _provider() == "instantly":
        accounts = [{"email": i, "timestamp_created": _BORN, "status": 1} for i in ids]
        return jsonify(items=accounts, **following)
    sessions = [
        {"object": "Account", "id": i, "type": "LINKEDIN", "created_at": _BORN} for i in ids
    ]
    return jsonify(object="AccountList", items=sessions, **following)


def _deleted(resource_id: str) -> Response:
    if _provider() == "agentmail":
        return Response()  # empty: no client may count on JSON here
    if _provider() == "instantly":
        return jsonify(email=resource_id, status=1, warmup_status=0)
    return jsonify(object="AccountDeleted")


def _disable_warmup() -> Response:
    # The real one also takes include_all_emails, which no caller may ever send.
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not body.get("emails") or len(body) > 1:
        return _problem("instantly", 400, "body must have emails and nothing else")
    return jsonify(type="update-warmup-accounts", status="pending", progress=0)


def _unrouted(error: HTTPException) -> Response:
    """A wrong URL or method: an HTML page, but for Instantly."""
    if _provider() != "instantly":
        return Response(f"<h1>{error.name}</h1>", error.code)
    url = _path_at_provider() + "?" * bool(request.query_string) + request.query_string.decode()
    return _problem("instantly", 404, f"Route {request.method}:{url} not found")


def _fault(provider: str, fault: str) -> Response:
    status, *reasons = _FAULTS[fault]
    return _problem(provider, status, reasons[PROVIDERS.index(provider)])


def _problem(provider: str, status: int, reason: str, **more: str) -> Response:
    """An error in the provider's own envelope."""
    title = HTTPStatus(status).phrase
    unipile: dict[str, Any] = {"title": title, "type": f"errors/{reason}", "status": status}
    if request.path.startswith("/unipile/v2/"):
        unipile |= {"object": "Error", "type": f"api/{reason}"}
    name = title.replace(" ", "").removesuffix("Error") + "Error"
    envelopes: dict[str, dict[str, Any]] = {
        "unipile": unipile,
        "instantly": {"statusCode": status, "error": title, "message": reason},
        "agentmail": {"name": name, "code": reason, "message": title},
    }
    response = jsonify(envelopes[provider] | more)
    response.status_code = status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        response.headers["Retry-After"] = "30"
    return response
