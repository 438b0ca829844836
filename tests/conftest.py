from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import threading
from importlib.metadata import entry_points
from itertools import groupby
from pathlib import Path

import measuring  # first: what follows is large
import pytest
from databases import Databases, copied, migrated_sqlite
from hypothesis import Phase, settings
from postgresql import SHARED, postgres_server
from remembered import remembered
from selection import is_beyond, needs, starts_processes
from support import Gunicorn, Stack
from werkzeug.serving import WSGIRequestHandler, make_server
from wire import self_signed

from puffle_accounts import context
from puffle_accounts.app import create_app
from puffle_accounts.demo.sandbox import Sandbox
from puffle_accounts.hooks.hookspecs import GROUP

OF_THE_SERVICE = ("DATABASE_URL", "PUFFLE_", "UNIPILE_", "INSTANTLY_", "AGENTMAIL_", "OTEL_")
PROCESSES = {"subprocess.Popen", "os.fork", "os.posix_spawn"}

# For who asks no more than whether a test fails: to look for the simplest case takes minutes.
settings.register_profile("no-shrinking", phases=set(Phase) - {Phase.shrink, Phase.explain})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what needs a server")
    parser.addoption("--in-process", action="store_true", help="leave out what starts a process")


def pytest_configure(config: pytest.Config) -> None:
    """A test skips itself where it starts a process it must not, so that nobody has to mark it."""
    left_out = config.getoption("quick") or config.getoption("in_process")
    if left_out and not config.getoption("numprocesses", None):
        sys.addaudithook(_skip_at_a_process)
    config.pluginmanager.register(measuring)
    if SHARED not in os.environ:  # a worker has been given its own
        folder = tempfile.TemporaryDirectory(prefix="puffle-tests-")
        os.environ[SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


def _skip_at_a_process(event: str, words: tuple) -> None:
    cheap = words[:1] == ("openssl",)
    if event in PROCESSES and not cheap and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip("it starts a process")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays to the end: no search for garbage need look at it, nor so often."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(50_000)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick nothing is begun that needs a server, by its fixtures, or is marked as slow.

    With --in-process the sandbox, which is in this process, is no server.
    """
    beyond = {item for item in items if is_beyond(item)}
    if config.getoption("quick") or config.getoption("in_process"):
        quick = config.getoption("quick")
        left_out = beyond | {item for item in items if quick and needs({"sandbox"}, item)}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    elif hasattr(config, "workerinput"):
        items[:] = _dealt(items, config.workerinput["workercount"])


def _dealt(items: list[pytest.Item], hands: int) -> list[pytest.Item]:
    """Let each worker begin with files that start processes, so that none of these ends alone.

    Each is given as many items, one after the other, and takes from others when it has done them.
    """
    by_file = [list(of_one) for _, of_one in groupby(items, key=lambda item: item.path)]
    long = [of_one for of_one in by_file if any(map(starts_processes, of_one))]
    short = [item for of_one in by_file if of_one not in long for item in of_one]
    dealt = []
    for hand in range(hands):
        dealt += [item for of_one in long[hand::hands] for item in of_one]
        more = max(0, len(items) * (hand + 1) // hands - len(dealt))
        dealt, short = dealt + short[:more], short[more:]
    return dealt + short


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The tests count on the three plugins of this project, and on no other."""
    foreign = {point.dist.name for point in entry_points(group=GROUP)} - {"puffle-accounts"}
    if foreign:
        pytest.exit(f"uninstall {', '.join(sorted(foreign))} from here first", returncode=1)


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
    return Databases(postgres)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """What was logged may hold half a character; the process that collects reports takes none."""
    report = yield
    report.sections = [
        (name, said.encode(errors="backslashreplace").decode()) for name, said in report.sections
    ]
    return report
