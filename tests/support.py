"""What the tests stand on: a database, the sandbox providers, and the service over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import requests
from click.testing import Result
from commands import ForkedGunicorn, ForkedProgram, run_program
from playhouse.shortcuts import model_to_dict
from remembered import remembered
from werkzeug.http import HTTP_STATUS_CODES

from puffle_accounts import clock, database, hookimpl, keys
from puffle_accounts.app import create_app
from puffle_accounts.bulkhead import Bulkhead
from puffle_accounts.database import schema
from puffle_accounts.database.models import MODELS, AccountRow
from puffle_accounts.demo.sandbox import Sandbox
from puffle_accounts.hooks.hookimpls import verify
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.attempt import Retrier
from puffle_accounts.orphans.record import NOW
from puffle_accounts.orphans.retry import Pass, Scope
from puffle_accounts.resources import declared

ROOT = Path(__file__).parents[1]
MIGRATIONS = (
    "0001_initial",
    "0002_live_accounts",
    "0003_verbatim_snapshots",
    "0004_resource_ids",
    "0005_hashed_ids",
)
APPLIED = "".join(f"applied {name}\n" for name in MIGRATIONS)
COLUMN_OF = {
    "unipile": "provider_account_id",
    "instantly": "instantly_account_id",
    "agentmail": "agentmail_inbox_id",
}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def only(name: str):
    """Run a test on one database alone: where the database cannot matter, or only it will do."""
    return pytest.mark.parametrize("database_url", [name], indirect=True)


class Answer(NamedTuple):
    status_code: int
    headers: HTTPMessage
    content: bytes

    def json(self):
        return json.loads(self.content)


def send(url: str, method: str, target: str, **headers: str | bytes) -> Answer:
    """Send a request line as it is, which no tidy client would; headers with `_` for `-`."""
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def assert_problem(answer: Answer | requests.Response, status: int, error: str) -> None:
    """The answer is this error, in the one shape that errors have (RFC 9457)."""
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body.pop("detail")
    title = HTTP_STATUS_CODES[status]
    assert body == {"type": "about:blank", "title": title, "status": status, "error": error}
    assert answer.headers["X-Request-ID"]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    """Run a module as a command, beside wsgi.py, with no database made ready before."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_forked(program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
    """Do as `run` does, much cheaper: where nothing depends on what a new interpreter imports."""
    return run_program(program, arguments, {**os.environ, **environ}, ROOT, timeout=60)


def invoke(environ: dict[str, str], *arguments: str) -> Result:
    """Run `puffle-accounts` in this process: for what one of its own would not show better."""
    bound = AccountRow._meta.database
    with remembered():
        app = create_app(environ)
    ended = app.test_cli_runner().invoke(args=arguments)
    app.extensions["puffle_accounts"].database.close_all()
    if bound:
        bound.bind(MODELS)
    return ended


def write_distribution(site: Path, name: str, source: str, entry: str | None = None) -> None:
    """Put a module and what an installer says of it into a directory of sys.path or PYTHONPATH."""
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    entry = entry or f"{name} = {module}"
    (info / "entry_points.txt").write_text(f"[puffle_accounts]\n{entry}\n")


def plugin_of(name: str, limit: int = 8, **attributes) -> Plugin:
    """Return a plugin, verified as the service does it, that has these attributes at its top."""
    module = SimpleNamespace(**attributes)
    fields, impls = declared(module), verify(module)
    return Plugin(name, "", Bulkhead(limit), module, resource_ids=fields, impls=impls)


def use_plugins(live: Stack, *plugins: Plugin) -> None:
    """Let these be all the plugins of the service."""
    live.service.plugins = Plugins(plugins)


def use(live: Stack, **hooks) -> None:
    """Let these be all the plugins of the service, `name=teardown_account`."""
    live.service.plugins = Plugins(
        plugin_of(name, limit=64, teardown_account=hookimpl(hook)) for name, hook in hooks.items()
    )


def wait_until(condition, seconds=20.0):
    """Return the first true answer of `condition`, or fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def wait_until_listening(host: str, port: int) -> None:
    """Wait until somebody takes connections there."""

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return True
        return False

    wait_until(answers)


def direct_session() -> requests.Session:
    """Return a session that looks for no proxy: that takes longer than a call."""
    session = requests.Session()
    session.trust_env = False
    return session


class Stack:
    """A migrated database with one user, the sandbox, and a URL to send DELETEs to."""

    def __init__(self, database_url: str, sandbox: Sandbox, **environ: str) -> None:
        self.database_url = database_url
        self.sandbox = sandbox
        self.database = database.connect(database_url)
        self.database.bind(MODELS)
        with self.database.reading():
            has_tables = self.database.table_exists("puffle_accounts_migrations")
        if not has_tables:
            schema.upgrade(self.database)
        self.user_id = str(uuid.uuid4())
        with self.database.writing():
            self.key = keys.create(self.user_id, "tests")
        self.environ = {
            **sandbox.environment,
            "DATABASE_URL": database_url,
            "PUFFLE_TEARDOWN_TIMEOUT": "2",
            "PUFFLE_LOG_FORMAT": "json",
            **environ,
        }
        self.url = "http://unset"

    # The accounts

    def add(self, type="linkedin", user_id=None, id=None, **columns) -> str:
        """Insert an account, and at the sandbox what it names; return its id."""
        account_id = id or str(uuid.uuid4())
        now = clock.now()
        values = {"status": "connected", "created_at": now, "updated_at": now} | columns
        with self.database.writing():
            AccountRow.create(id=account_id, user_id=user_id or self.user_id, type=type, **values)
        for provider, column in COLUMN_OF.items():
            if columns.get(column):
                self.sandbox.add(provider, columns[column])
        return account_id

    def add_linkedin(self, **columns) -> str:
        return self.add(**{"provider_account_id": f"acc-{uuid.uuid4().hex[:8]}", **columns})

    def add_email(self, **columns) -> str:
        address = f"{uuid.uuid4().hex[:8]}@outreach.example"
        ids = dict.fromkeys(
            ("email_address", "agentmail_inbox_id", "instantly_account_id"), address
        )
        return self.add(type="email", **{**ids, **columns})

    def row(self, account_id: str) -> dict | None:
        """Return the account's row, `None` if it is gone."""
        with self.database.reading():
            row = AccountRow.get_or_none(AccountRow.id == account_id)
            return row and model_to_dict(row)

    def change(self, account_id: str, **columns) -> None:
        with self.database.writing():
            AccountRow.update(**columns).where(AccountRow.id == account_id).execute()

    def orphans(self) -> list[dict]:
        return [orphan for page in standing.pages(self.database) for orphan in page]

    def make_due(self) -> None:
        self.sql("UPDATE orphans SET next_attempt_at = clock(?), leased_until = NULL", NOW)

    def sql(self, statement: str, *params):
        """Execute one statement; return its rows if it has any."""
        with self.database.writing():
            cursor = self.database.sql(statement, *params)
            return cursor.fetchall() if cursor.description else []

    # The service

    def retry(self) -> dict[str, int]:
        """Run a pass over the orphans with the plugins of the service in this process."""
        retrier = Retrier(self.service.ledger, self.service.plugins, self.service.timeout)
        scope = Scope(self.service.plugins.active)
        return dict(Pass(retrier, scope, threading.Event()).work())

    def delete(self, account_id: str, key: str | None = None, **headers) -> requests.Response:
        """Send a DELETE; headers are named with `_` for `-`."""
        sent = {"Authorization": f"Bearer {key or self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with direct_session() as session:
            return session.delete(f"{self.url}/api/accounts/{account_id}", headers=sent, timeout=30)

    def command(self, *arguments: str, timeout=60, **environ: str) -> subprocess.CompletedProcess:
        """Run `puffle-accounts` as an operator would."""
        return run_program(
            "puffle_accounts", arguments, self.process_environ(**environ), Path.cwd(), timeout
        )

    def fork_command(self, *arguments: str, **environ: str) -> ForkedProgram:
        """Begin what `command` runs to its end."""
        return ForkedProgram(
            "puffle_accounts", arguments, self.process_environ(**environ), Path.cwd()
        )

    def start_command(self, *arguments: str, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "puffle_accounts", *arguments],
            env=self.process_environ(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process_environ(self, **environ: str) -> dict[str, str]:
        return {**os.environ, **self.environ, **environ}


class Gunicorn:
    """The real thing: gunicorn with the project's own gunicorn.conf.py, in a process group.

    By this interpreter it is forked from a process that has made its imports, which is cheaper.

    Args:
        by: the command that starts it, if it is not started by itself.
        program: the module that becomes it, with a command of its own if need be.
    """

    def __init__(
        self,
        stack: Stack,
        log: Path,
        *arguments: str,
        python: str | Path = sys.executable,
        folder: Path = ROOT,
        app: str = "wsgi:app",
        port: int = 0,
        by: tuple[str, ...] = (),
        program: tuple[str, ...] = ("gunicorn",),
        listener: socket.socket | None = None,
        **environ: str,
    ) -> None:
        self.log = log
        # Bound here: a port that is merely free may be another's by the time that gunicorn binds.
        bound = listener.dup() if listener else socket.create_server(("127.0.0.1", port))
        with bound as listener:
            self.address = listener.getsockname()
            self.url = "http://{}:{}".format(*self.address)
            words, environ = ("--workers", "1", *arguments, app), stack.process_environ(**environ)
            if (python, by, program) == (sys.executable, (), ("gunicorn",)):
                self.process = ForkedGunicorn(words, environ, folder, log, listener)
            else:
                command = [*by, python, "-m", *program]
                self.process = _started(command, words, environ, folder, log, listener)
        stack.url = self.url

    def wait_until_ready(self) -> Gunicorn:
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return requests.get(self.url, timeout=1).status_code == 404
            except requests.RequestException:
                return False

        wait_until(answers)
        return self

    def lines(self) -> list[dict]:
        """Return the JSON lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]

    def kill(self) -> None:
        """kill -9, master and workers at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as a service manager would; return the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=30)


def _started(
    program: list, words: tuple, environ: dict, folder: Path, log: Path, listener: socket.socket
) -> subprocess.Popen:
    """Start gunicorn by its command line."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*program, "--bind", f"fd://{listener.fileno()}", *words],
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
