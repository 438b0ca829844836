"""The whole thing on one machine: sandbox providers, three accounts, the real gunicorn."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from math import ceil
from pathlib import Path

import click

from puffle_accounts import clock, database, keys
from puffle_accounts.config import FILE, GRACE, Config
from puffle_accounts.database import schema
from puffle_accounts.database.models import MODELS, AccountRow
from puffle_accounts.demo.sandbox import PROVIDERS, Call, Sandbox

HOST = "127.0.0.1"
SETTINGS = "python:puffle_accounts.serving"  # not the gunicorn.conf.py of whatever folder
PATIENCE = 20.0  # seconds for gunicorn to come up
QUICK_END = 5.0  # seconds for gunicorn to end by itself; it takes well under one

ACCOUNTS = (
    (
        "a connected LinkedIn account: its session is revoked, the row stays as disconnected",
        {"type": "linkedin", "status": "connected", "provider_account_id": "unipile-acc-1"},
    ),
    (
        "a disconnected LinkedIn account: no provider is called, the row is deleted",
        {"type": "linkedin", "status": "disconnected", "provider_account_id": "unipile-acc-2"},
    ),
    (
        "an e-mail account: warm-up and inbox are deleted, then the row",
        {
            "type": "email",
            "status": "connected",
            "email_address": "ada@outreach.example",
            "agentmail_inbox_id": "ada@outreach.example",
            "instantly_account_id": "ada@outreach.example",
        },
    ),
)


#: What the providers hold for nobody: left before this service was there.
FORGOTTEN = (("unipile", "unipile-acc-forgotten"), ("agentmail", "forgotten@outreach.example"))


def serve(port: int, modes: Mapping[str, str]) -> None:
    """Serve until Ctrl-C, then leave nothing running and no file behind.

    Args:
        port: of the service, on loopback.
        modes: how providers are to misbehave, by name.

    Raises:
        click.ClickException: the port is taken, or gunicorn does not come up.
        ConfigError: a variable of the environment cannot be used.
    """
    _require_free(port)
    with (
        _signals() as asked_to_end,
        tempfile.TemporaryDirectory(prefix="puffle-demo-") as folder,
        Sandbox(on_call=_print) as sandbox,
    ):
        for provider, mode in modes.items():
            sandbox.behave(provider, mode)
        own = {
            **sandbox.environment,
            "DATABASE_URL": f"sqlite:///{Path(folder) / 'demo.db'}",
            "no_proxy": HOST,
        }
        not_both = {f"{name}{FILE}" for name in own}
        inherited = {name: value for name, value in os.environ.items() if name not in not_both}
        environ = {**inherited, **own}
        config = Config.from_environ(environ)
        key, ids = _fill(config.database_url, sandbox)
        with _gunicorn(port, environ, config.teardown_timeout) as server:
            if _comes_up(port, server, asked_to_end):
                click.echo(_guide(port, key, ids, environ))
            else:
                server.kill()  # an interrupt would make a traceback of what it is just importing
            while not asked_to_end:
                if server.poll() is not None:
                    raise click.ClickException("gunicorn ended; its last lines say why")
                time.sleep(0.1)
            sandbox.stop()  # what hangs is dropped, so that nobody waits for it
            click.echo("\nEnding.")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect what asks the demo to end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: a closed window
    asked: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        yield asked
    finally:
        for number in numbers:  # one more, while Python ends, would make a failure of it
            signal.signal(number, signal.SIG_IGN)


def _require_free(port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise click.ClickException(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error


def _fill(url: str, sandbox: Sandbox) -> tuple[str, list[str]]:
    store = database.connect(url)
    store.bind(MODELS)
    schema.upgrade(store)
    user, ids = str(uuid.uuid4()), []
    with store.writing():
        key = keys.create(user, "demo")
        for _, columns in ACCOUNTS:
            ids.append(str(uuid.uuid4()))
            now = clock.now()
            AccountRow.create(id=ids[-1], user_id=user, created_at=now, updated_at=now, **columns)
            for provider, column in (
                ("unipile", "provider_account_id"),
                ("instantly", "instantly_account_id"),
                ("agentmail", "agentmail_inbox_id"),
            ):
                if column in columns and columns["status"] != "disconnected":
                    sandbox.add(provider, columns[column])
    for provider, resource_id in FORGOTTEN:
        sandbox.add(provider, resource_id)
    store.close_all()
    return key, ids


def _guide(port: int, key: str, ids: list[str], environ: Mapping[str, str]) -> str:
    lines = ["", f"API key: {key}", "", "In another terminal:"]
    for account_id, (what, _) in zip(ids, ACCOUNTS, strict=True):
        curl = f"curl -i -X DELETE http://{HOST}:{port}/api/accounts/{account_id}"
        lines += ["", f"# {what}", f"{curl} -H 'Authorization: Bearer {key}'"]
    lines += ["", "# a session and an inbox that the providers hold for nobody"]
    lines.append(f"{_variables(environ)} {sys.executable} -m puffle_accounts orphans find")
    return "\n".join([*lines, "", "Ctrl-C ends it.", ""])


def _variables(environ: Mapping[str, str]) -> str:
    """Return, as a shell takes it, what a command needs for the same database and providers."""
    names = ["DATABASE_URL"]
    for provider in map(str.upper, PROVIDERS):
        names += [f"{provider}_API_KEY", f"{provider}_BASE_URL"]
    return " ".join(f"{name}={shlex.quote(environ[name])}" for name in names)


@contextmanager
def _gunicorn(
    port: int, environ: Mapping[str, str], teardown_timeout: float
) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            f"--config={SETTINGS}",
            "--worker-class=gthread",
            "--threads=16",
            "--workers=1",
            "--log-level=warning",
            f"--graceful-timeout={ceil(teardown_timeout + GRACE)}",
            f"--bind={HOST}:{port}",
            "puffle_accounts.wsgi:app",
        ],
        env=environ,
        # Ctrl-C is for the demo alone: a worker of gunicorn that is interrupted a second time
        # while it ends waits for a lock that it holds itself.
        start_new_session=True,
    )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask once for gunicorn's quick end; what is left of it after a while is killed."""
    server.send_signal(signal.SIGQUIT)
    with suppress(subprocess.TimeoutExpired):
        server.wait(QUICK_END)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _comes_up(port: int, server: subprocess.Popen[bytes], asked_to_end: Sequence[int]) -> bool:
    """Wait until gunicorn listens; return whether it does before somebody ends the demo."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        if asked_to_end:
            return False
        with closing(socket.socket()) as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.1)
    raise click.ClickException("gunicorn did not come up; its last lines say why")


def _print(call: Call) -> None:
    said = "no answer" if call.status is None else call.status
    click.echo(f"  {call.provider or 'nobody'}: {call.method} {call.path} -> {said}")
