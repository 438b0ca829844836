"""How gunicorn runs the service: `gunicorn --config python:puffle_accounts.serving`.

Imported by gunicorn's master. Gevent patches in each worker before the application is
loaded, so nothing is patched here, and nothing that uses TLS, no database driver and no
plugin may be imported: what was imported before the patch keeps the unpatched classes.
For the same reason there is no preload. Every name here that gunicorn knows is a setting.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from math import ceil

from puffle_accounts import streams
from puffle_accounts.config import GRACE, Config
from puffle_accounts.environment import text
from puffle_accounts.errors import ConfigError
from puffle_accounts.processes import inherited, instrumented, logger, master, rehearsal, worker
from puffle_accounts.processes.refusal import refuse

streams.replace_closed()  # before anything is said, or opened
try:
    inherited.tidy(os.environ)
    _port = text(os.environ, "PORT")
    _processes = inherited.workers(os.environ, os.cpu_count() or 1)
    _seconds = Config.from_environ(os.environ).teardown_timeout + GRACE
except ConfigError as error:
    refuse(error)

wsgi_app = "puffle_accounts.wsgi:app"

bind = f"0.0.0.0:{_port}" if _port else "127.0.0.1:8000"  # gunicorn's own defaults

# Requests wait for providers. Greenlets that wait cost memory alone (docs/scaling.md), so gevent
# has no cap at threads / latency: it serves half as many again as threads without a call, five
# times as many of 512 with 200 ms a call (bench/results).
worker_class = "gevent" if find_spec("gevent") else "gthread"
workers = _processes

# gthread only: twice what the bulkhead admits per plugin, so that a hung provider
# leaves half of them. More than needed costs throughput.
threads = 64

# gevent only: requests in flight per worker, beyond which new ones wait in the backlog.
worker_connections = 2000

# In this order: provider's own clock < teardown deadline < graceful < gateway in front.
graceful_timeout = ceil(_seconds)

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

logger_class = logger.Logger
on_starting = master.on_starting
when_ready = master.when_ready
post_worker_init = worker.post_worker_init

instrumented.leave_to_workers()
rehearsal.rehearse()
