"""What tests stand on: databases, the sandbox providers, the service here or under gunicorn."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest
from databases import Databases, copied, migrated_sqlite
from postgresql import postgres_server
from remembered import remembered
from support import Gunicorn, Stack
from werkzeug.serving import WSGIRequestHandler, make_server
from wire import self_signed

from puffle_accounts import context
from puffle_accounts.app import create_app
from puffle_accounts.demo.sandbox import Sandbox

OF_THE_SERVICE = ("DATABASE_URL", "PUFFLE_", "UNIPILE_", "INSTANTLY_", "AGENTMAIL_", "OTEL_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No variable of whoever runs the tests reaches the service, and no request of another test."""
    for name in [each for each in os.environ if each.startswith(OF_THE_SERVICE)]:
        monkeypatch.delenv(name)
    context.request_id.set(None)


@pytest.fixture(scope="session")
def postgres() -> str:
    """A real PostgreSQL server for the session; the URL of its first database."""
    with postgres_server() as server:
        yield server.get_uri()


@pytest.fixture(scope="session")
def databases(postgres) -> Databases:
    with closing(Databases(postgres)) as databases:
        yield databases


@pytest.fixture
def unmigrated() -> None:
    """For a test whose database has none of the service's tables before `stack` makes them."""


def _has_tables(request: pytest.FixtureRequest) -> bool:
    return "stack" in request.fixturenames and "unmigrated" not in request.fixturenames


@pytest.fixture
def postgres_url(request, databases) -> str:
    """A PostgreSQL database of the test's own; with the tables if it asks for `stack`."""
    made = databases.migrated() if _has_tables(request) else databases.empty()
    with made as url:
        yield url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory) -> Path:
    return migrated_sqlite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture
def sqlite_url(request, tmp_path) -> str:
    """An SQLite database of the test's own; with the tables if it asks for `stack`."""
    if _has_tables(request):
        return copied(request.getfixturevalue("migrated_file"), tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request) -> str:
    """Each database in turn."""
    return request.getfixturevalue(
        {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A key and a certificate for loopback, in one file, vouched for by nobody but itself."""
    return self_signed(tmp_path_factory.mktemp("tls") / "loopback.pem")


@pytest.fixture
def sandbox():
    providers = Sandbox()
    with remembered():
        providers.start()
    yield providers
    providers.stop()


@pytest.fixture
def stack(database_url, sandbox):
    """Database, sandbox, no server yet."""
    stack = Stack(database_url, sandbox)
    yield stack
    stack.database.close_all()


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


@pytest.fixture
def live(stack):
    """The stack with the application over real HTTP, in this process."""
    with remembered():
        app = create_app(stack.environ)
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    stack.app, stack.service = app, app.extensions["puffle_accounts"]
    stack.database.close_all()
    stack.database = stack.service.database  # the models are bound to the newest one
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    stack.url = f"http://127.0.0.1:{server.server_port}"
    yield stack
    server.shutdown()
    server.server_close()


@pytest.fixture
def gunicorn(stack, tmp_path):
    """Start a real gunicorn in front of the stack: `gunicorn("--workers", "2")`.

    Under gthread, a third of the work, unless it is told otherwise.
    """
    started = []

    def start(*arguments: str, **environ: str) -> Gunicorn:
        if "--worker-class" not in arguments:
            arguments = ("--worker-class", "gthread", *arguments)
        log = tmp_path / f"gunicorn-{len(started)}.log"
        started.append(Gunicorn(stack, log, *arguments, **environ))
        return started[-1].wait_until_ready()

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def events(caplog):
    """Return the log's lines as (event, fields)."""
    caplog.set_level(logging.INFO)
    return lambda: [(record.getMessage(), vars(record)) for record in caplog.records]
