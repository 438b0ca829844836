"""Whether gunicorn's settings can be used, and go together: its master looks before it serves."""

from __future__ import annotations

import os
import sys
from typing import Any

from puffle_accounts.config import Config
from puffle_accounts.environment import text
from puffle_accounts.errors import ConfigError
from puffle_accounts.processes import inherited
from puffle_accounts.processes.refusal import refuse, told_in_one_line

HIGHEST_PORT = 65535
ONE_AT_A_TIME = "while it waits for a provider, a worker answers nobody else; use gevent or threads"


def look(settings: Any) -> None:
    """Look at each setting that gunicorn would take and stumble over.

    Args:
        settings: gunicorn's, whole: of its file, its environment and its command line.

    Raises:
        SystemExit: one cannot be used.
    """
    _refuse_unusable_port(settings)
    _refuse_unusable_class(settings)
    if not 1 <= settings.workers <= inherited.MOST_WORKERS:
        refuse(f"--workers must be from 1 to {inherited.MOST_WORKERS}")
    if at_a_time(settings) < 1:
        refuse("--threads and --worker-connections must be above 0")
    folder = settings.worker_tmp_dir
    if folder and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        refuse(f"--worker-tmp-dir {folder} is no folder that can be written to")


def on_starting(server: Any) -> None:
    """Look, in the master, whether the settings go together.

    Raises:
        SystemExit: they contradict each other.
    """
    sys.excepthook = told_in_one_line
    settings, ours = server.cfg, _read_environment()
    if settings.graceful_timeout <= ours.teardown_timeout:
        refuse(
            f"graceful_timeout ({settings.graceful_timeout} s) must exceed"
            f" PUFFLE_TEARDOWN_TIMEOUT ({ours.teardown_timeout:g} s),"
            " or a restart cuts off requests that wait for a provider"
        )
    if settings.worker_class_str == "gthread":
        if text(os.environ, "PUFFLE_PLUGIN_CALLS") is None:
            os.environ["PUFFLE_PLUGIN_CALLS"] = str(max(1, settings.threads // 2))
        if _read_environment().plugin_calls >= settings.threads > 1:
            server.log.warning(
                "PUFFLE_PLUGIN_CALLS should be below the number of threads,"
                " or a hung provider takes them all"
            )
    if at_a_time(settings) == 1:
        fields = {"worker_class": settings.worker_class_str, "reason": ONE_AT_A_TIME}
        server.log.warning("service.one_at_a_time", extra=fields)
    server.handle_int = server.handle_term  # what is under way is finished, as for SIGTERM


def when_ready(_: Any) -> None:
    """From now on a fault is told as Python tells it."""
    sys.excepthook = sys.__excepthook__


def at_a_time(settings: Any) -> int:
    """Return how many requests a worker serves at a time, at most."""
    if settings.worker_class_str == "sync":
        return 1
    most: int = settings.worker_connections
    return min(most, settings.threads) if settings.worker_class_str == "gthread" else most


def _refuse_unusable_port(settings: Any) -> None:
    try:
        ports = [address[1] for address in settings.address if isinstance(address, tuple)]
    except RuntimeError as error:
        refuse(f"--bind or PORT: {error}")
    if not all(0 <= port <= HIGHEST_PORT for port in ports):
        refuse(f"the port in --bind or PORT must be a whole number from 0 to {HIGHEST_PORT}")


def _refuse_unusable_class(settings: Any) -> None:
    name, said = settings.worker_class_str, "there is no such class"
    try:
        found = settings.worker_class
    except RuntimeError as error:  # which has a whole traceback in its message, in brackets
        found, said = None, str(error).rstrip("]\n").splitlines()[-1]
    if not isinstance(found, type):
        refuse(f"--worker-class {name} cannot be used: {said}; take gevent, gthread or sync")


def _read_environment() -> Config:
    try:
        return Config.from_environ(os.environ)
    except ConfigError as error:
        refuse(error)
