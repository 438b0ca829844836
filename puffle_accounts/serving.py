"""How gunicorn runs the service: `gunicorn --config python:puffle_accounts.serving`.

Imported by gunicorn's master. Gevent patches in each worker before the application is
loaded, so nothing is patched here, and nothing that uses TLS, no database driver and no
plugin may be imported: what was imported before the patch keeps the unpatched classes.
For the same reason there is no preload. Every name here that gunicorn knows is a setting.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from importlib.util import find_spec
from math import ceil
from typing import Any, NoReturn

from gunicorn.glogging import Logger as GunicornLogger

from puffle_accounts import instrumented, scarcity, streams
from puffle_accounts.config import GRACE, Config, log_format
from puffle_accounts.environment import count, text
from puffle_accounts.errors import ConfigError
from puffle_accounts.logs import formatter
from puffle_accounts.text import hide_secrets_of

APP_LOAD_ERROR = 4  # the exit status by which gunicorn says that the application cannot be loaded
HIGHEST_PORT = 65535
ONE_AT_A_TIME = "while it waits for a provider, a worker answers nobody else; use gevent or threads"


class Logger(GunicornLogger):
    """gunicorn's logs, access log included, in the form of the service's own."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        hide_secrets_of(os.environ)
        ours = formatter(log_format(os.environ))
        for logger in (self.error_log, self.access_log):
            logger.handlers = [*map(_unhindered, logger.handlers)]
            for handler in logger.handlers:
                handler.setFormatter(ours)
                streams.lose_quietly(handler)


def _unhindered(handler: logging.Handler) -> logging.Handler:
    """Return what writes to a stream without waiting for its reader; a file's stays."""
    if type(handler) is not logging.StreamHandler:
        return handler
    ours = streams.handler(handler.stream)
    vars(ours)["_gunicorn"] = True  # by which gunicorn knows what to replace when it is reloaded
    return ours


def on_starting(server: Any) -> None:
    """Look, in the master, whether the settings go together.

    Raises:
        SystemExit: they contradict each other.
    """
    settings, ours = server.cfg, _read_environment()
    _refuse_unusable_port(settings)
    if settings.graceful_timeout <= ours.teardown_timeout:
        _refuse(
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
    if _at_a_time(settings) == 1:
        fields = {"worker_class": settings.worker_class_str, "reason": ONE_AT_A_TIME}
        server.log.warning("service.one_at_a_time", extra=fields)
    server.handle_int = server.handle_term  # what is under way is finished, as for SIGTERM


def post_worker_init(worker: Any) -> None:
    """Say once, at the start, what it is, and that the database is away, if it is."""
    signal.signal(signal.SIGINT, worker.handle_exit)  # a terminal's Ctrl-C goes to all processes
    _outlive_the_master(worker)
    scarcity.endure(worker)
    if worker.age == 1:
        from puffle_accounts import database, start  # in the worker, patched by now

        service = worker.wsgi.extensions["puffle_accounts"]
        start.report(os.environ, service.plugins, worker.cfg.worker_class_str)
        looks = threading.Thread(
            target=database.report_absence, args=(service.database,), daemon=True
        )
        looks.start()  # nobody waits for that


def _outlive_the_master(worker: Any) -> None:
    """Let a worker whose master is gone finish what is under way, as by SIGTERM.

    One of gevent's exits from within `notify`, and answers with failures while all is closed.
    """
    notify = worker.notify

    def gently() -> None:
        if not worker.alive:
            worker.tmp.notify()
            return
        try:
            notify()
        except SystemExit:
            worker.alive = False

    worker.notify = gently


def _at_a_time(settings: Any) -> int:
    """Return how many requests a worker serves at a time, at most."""
    if settings.worker_class_str == "sync":
        return 1
    most: int = settings.worker_connections
    return min(most, settings.threads) if settings.worker_class_str == "gthread" else most


def _refuse_unusable_port(settings: Any) -> None:
    for address in settings.address:
        if isinstance(address, tuple) and not 0 <= address[1] <= HIGHEST_PORT:
            _refuse(f"the port in --bind or PORT must be at most {HIGHEST_PORT}")


def _read_environment() -> Config:
    try:
        return Config.from_environ(os.environ)
    except ConfigError as error:
        _refuse(str(error))


def _rehearse() -> None:
    """Load the application in a process of its own, to end with one line if it refuses to start.

    Plugins read their own variables, and the master must not import them; each worker would say
    the same again, in the middle of gunicorn's own lines. What the master has imported already
    is there after a fork: half of what a new interpreter would have to do.
    """
    outside, inside = os.pipe()
    child = os.fork()
    if not child:
        os._exit(_load_application(inside))
    os.close(inside)
    with open(outside, errors="backslashreplace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == APP_LOAD_ERROR:
        sys.stderr.write(said)
        sys.exit(APP_LOAD_ERROR)


def _load_application(errors: int) -> int:
    """Return the exit status of a worker that loads it, and write to a file what that says."""
    try:
        os.dup2(errors, 2)
        logging.disable()
        instrumented.never()
        importlib.import_module("puffle_accounts.wsgi")
    except SystemExit as refused:
        sys.stderr.flush()
        return APP_LOAD_ERROR if refused.code == APP_LOAD_ERROR else 1
    except BaseException:  # the worker will say it
        return 1
    return 0


def _refuse(reason: str) -> NoReturn:
    print(f"puffle-accounts: {reason}", file=sys.stderr)
    sys.exit(APP_LOAD_ERROR)


streams.replace_closed()  # before anything is said, or opened


def _processes() -> int:
    try:
        return count(os.environ, "WEB_CONCURRENCY", os.cpu_count() or 1)
    except ConfigError as error:
        _refuse(str(error))


# Requests wait for providers. Greenlets that wait cost memory alone (docs/scaling.md), so
# gevent serves half as many again as threads and has no cap at threads / latency.
worker_class = "gevent" if find_spec("gevent") else "gthread"
workers = _processes()

# gthread only: twice what the bulkhead admits per plugin, so that a hung provider
# leaves half of them. More than needed costs throughput.
threads = 64

# gevent only: requests in flight per worker, beyond which new ones wait in the backlog.
worker_connections = 2000

# In this order: provider's own clock < teardown deadline < graceful < gateway in front.
graceful_timeout = ceil(_read_environment().teardown_timeout + GRACE)

# A worker whose loop is silent for so long is stuck in a plugin that computes.
timeout = 60

# Longer than a gateway keeps its connections, so that it is never the one surprised.
keepalive = 75

# One socket per user in the home directory: two instances would fight for it.
control_socket_disable = True

# The route is the path alone: no header of a peer may change it, not even of one on loopback.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# By default gunicorn parses with any `gunicorn_h1c` that happens to be installed, even one older
# than `gunicorn[fast]` asks for: 0.6.10 takes two spaces in a request line. It saves 3 µs.
http_parser = "python"

logger_class = Logger

instrumented.leave_to_workers()
_rehearse()
