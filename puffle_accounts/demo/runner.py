"""The whole thing on one machine: sandbox providers, some accounts, the real gunicorn."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import click

from puffle_accounts.config import GRACE, Config
from puffle_accounts.demo import accounts
from puffle_accounts.demo.envelopes import PROVIDERS
from puffle_accounts.demo.sandbox import Call, Sandbox
from puffle_accounts.environment import FILE
from puffle_accounts.processes import SETTINGS
from puffle_accounts.text import is_secret, scrub

HOST = "127.0.0.1"
PATIENCE = 20.0  # seconds for gunicorn to come up
QUICK_END = 5.0  # seconds for gunicorn to end by itself; it takes well under one


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of the demo.

    Args:
        port: of the service, on loopback.
        modes: how providers are to misbehave, by name.
        accounts: the columns of more accounts.
        variables: of the service's environment, for instance a plugin's.
        database: a file to keep, `None` for one that goes when the demo ends.
    """

    port: int
    modes: Mapping[str, str] = field(default_factory=dict)
    accounts: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    database: Path | None = None


def serve(plan: Plan) -> None:
    """Serve until Ctrl-C, then leave nothing running and no file behind but a database to keep.

    Raises:
        click.ClickException: the port is taken, or gunicorn does not come up.
        ConfigError: a variable of the environment cannot be used.
    """
    _require_free(plan.port)
    with (
        _signals() as asked_to_end,
        tempfile.TemporaryDirectory(prefix="puffle-demo-") as folder,
        Sandbox(on_call=_print) as sandbox,
    ):
        for provider, mode in plan.modes.items():
            sandbox.behave(provider, mode)
        own = {
            **sandbox.environment,
            "no_proxy": HOST,
            **plan.variables,
            "DATABASE_URL": f"sqlite:///{plan.database or Path(folder) / 'demo.db'}",
        }
        not_both = {f"{name}{FILE}" for name in own}
        inherited = {name: value for name, value in os.environ.items() if name not in not_both}
        environ = {**inherited, **own}
        config = Config.from_environ(environ)
        key, ids = accounts.fill(config.database_url, sandbox, plan.accounts)
        with _gunicorn(plan.port, environ, config.teardown_timeout) as server:
            if _comes_up(plan.port, server, asked_to_end):
                click.echo(_guide(plan, key, ids, environ))
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


def _guide(plan: Plan, key: str, ids: Mapping[str, str], environ: Mapping[str, str]) -> str:
    lines = ["", f"API key: {key}", "", "In another terminal:"]
    for account_id, what in ids.items():
        curl = f"curl -i -X DELETE http://{HOST}:{plan.port}/api/accounts/{account_id}"
        lines += ["", f"# {what}", f"{curl} -H 'Authorization: Bearer {key}'"]
    lines += ["", "# a session and an inbox that the providers hold for nobody"]
    command = f"{sys.executable} -m puffle_accounts orphans find"
    lines.append(f"{_variables(plan, environ)} {command}")
    return "\n".join([*lines, "", "Ctrl-C ends it.", ""])


def _variables(plan: Plan, environ: Mapping[str, str]) -> str:
    """Return, as a shell takes it, what a command needs for the same database and providers.

    A key that was given is not shown: the shell is to have it.
    """
    names = ["DATABASE_URL"]
    for provider in map(str.upper, PROVIDERS):
        names += [f"{provider}_API_KEY", f"{provider}_BASE_URL"]
    shown = {name: shlex.quote(environ[name]) for name in [*names, *plan.variables]}
    for name, value in plan.variables.items():
        if is_secret(name) or scrub(value) != value:
            shown[name] = f'"${name}"'
    return " ".join(f"{name}={value}" for name, value in shown.items())


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
    while time.monotonic() < deadline and server.poll() is None and not asked_to_end:
        with closing(socket.socket()) as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.1)
    if asked_to_end:  # Ctrl-C also ends a gunicorn that has no session of its own yet
        return False
    raise click.ClickException("gunicorn did not come up; its last lines say why")


def _print(call: Call) -> None:
    said = "no answer" if call.status is None else call.status
    click.echo(f"  {call.provider or 'nobody'}: {call.method} {call.path} -> {said}")
