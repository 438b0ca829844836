"""The kit for plugin authors' tests: an account, a call as the service makes it, a fake provider.

def test_it_deletes_the_contact(monkeypatch):
    with FakeProvider() as provider:
        monkeypatch.setenv("EXAMPLE_API_KEY", "any")
        monkeypatch.setenv("EXAMPLE_BASE_URL", provider.url)
        provider.answer(200)
        result = call(my_plugin, account(metadata={"contact": "c-1"}))
        assert result.said == "contact deleted"
        assert provider.requests[0].path == "/contacts/c-1"
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from puffle_accounts import resources, teardown
from puffle_accounts.account import Account
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.hooks import hookimpls, registry
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.resources import Resource
from puffle_accounts.text import one_line

__all__ = [
    "BrokenPlugin",
    "FakeProvider",
    "Request",
    "Result",
    "account",
    "call",
    "check",
    "holdings",
]


def account(**values: Any) -> Account:
    """Return an account to tear down: an e-mail account, but for what `values` say."""
    now = datetime.now(timezone.utc)
    defaults: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "user_id": str(uuid.uuid4()),
        "type": "email",
        "status": "connected",
        "created_at": now,
        "updated_at": now,
    }
    return Account(**{**defaults, **values})


@dataclass(frozen=True, slots=True)
class Result:
    """What the service would make of a call.

    Args:
        said: what the plugin says it did, `None` if it had nothing to do.
        failure: what is left, `None` if nothing is.
        retry_after: seconds that the plugin asked to wait.
        permanent: whether retries would be pointless.
    """

    said: str | None
    failure: str | None
    retry_after: float
    permanent: bool


def call(plugin: Any, account: Account, seconds: float = 10.0) -> Result:
    """Verify a plugin and call it with an account, isolated, as the service does.

    Its HTTP clients read the environment's variables afresh.

    Args:
        plugin: a module, or an object with methods that are marked with `@hookimpl`.
        account: what to tear down.
        seconds: the teardown deadline.

    Raises:
        BrokenPlugin: the service could not use the plugin.
    """
    only = _configured(plugin)
    implementations = only.concerned(account) if only.all[0].accepts(account.kind) else []
    outcomes = teardown.call_all(implementations, account, time.monotonic() + seconds)
    failed = next((outcome for outcome in outcomes if outcome.failure), None)
    said = next((outcome.said for outcome in outcomes if outcome.said), None)
    return Result(
        said=said,
        failure=failed.failure if failed else None,
        retry_after=failed.retry_after if failed else 0.0,
        permanent=bool(failed and failed.permanent),
    )


def check(plugin: Any) -> str | None:
    """Call a plugin's `check_provider`; return what it raised in a line, `None` if nothing.

    Raises:
        BrokenPlugin: the service could not use the plugin.
    """
    asks = registry.checks(_configured(plugin).all[0])
    try:
        for ask in asks:
            ask()
    except Exception as error:
        return one_line(error) or type(error).__name__
    return None


def holdings(plugin: Any) -> Iterator[Resource]:
    """Return what a plugin's `find_resources` says that its provider holds.

    Raises:
        BrokenPlugin: the service could not use the plugin.
        TeardownFailed: the provider could not be asked.
    """
    return registry.holdings(_configured(plugin).all[0])


def _configured(plugin: Any) -> Plugins:
    impls = hookimpls.verify(plugin)
    fields = resources.declared(plugin)
    only = Plugins(
        [Plugin("plugin-under-test", "", Bulkhead(8), plugin, resource_ids=fields, impls=impls)]
    )
    registry.configure(only, os.environ)
    return only


@dataclass(frozen=True, slots=True)
class Request:
    """What a provider was asked; `path` is as it came over the wire, query included."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str]
    delay: float


class FakeProvider:
    """An HTTP server on loopback that gives the answers it was told, the last one for ever.

    It says 200 until it is told. A context manager; `url` is where it listens, `requests` what
    it was asked.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: deque[_Answer] = deque()
        self._answer = _Answer(200, b"", {}, 0.0)
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: fake._serve(self)
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

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
        raw = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answers.append(_Answer(status, raw, named, delay))
        return self

    def __enter__(self) -> FakeProvider:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        self.requests.append(
            Request(handler.command, handler.path, dict(handler.headers.items()), body)
        )
        with suppress(IndexError):
            self._answer = self._answers.popleft()
        answer = self._answer
        time.sleep(answer.delay)
        handler.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)
