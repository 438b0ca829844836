"""How gunicorn runs the service; gunicorn finds this file by itself beside wsgi.py.

Nothing is patched here, and neither the application nor a database driver is imported:
this is read by gunicorn's master, and gevent patches in each worker before the
application is loaded. For the same reason there is no preload.
"""

import os
from importlib.util import find_spec
from math import ceil

from puffle_accounts.serving import GRACE, Logger, on_starting, teardown_timeout

# Requests wait for providers. Greenlets that wait cost memory alone (docs/scaling.md), so
# gevent serves half as many again as threads and has no cap at threads / latency.
worker_class = "gevent" if find_spec("gevent") else "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", os.cpu_count() or 1))

# gthread only: twice what the bulkhead admits per plugin, so that a hung provider
# leaves half of them. More than needed costs throughput.
threads = 64

# gevent only: requests in flight per worker, beyond which new ones wait in the backlog.
worker_connections = 2000

# In this order: provider's own clock < teardown deadline < graceful < gateway in front.
graceful_timeout = ceil(teardown_timeout() + GRACE)

# A worker whose loop is silent for so long is stuck in a plugin that computes.
timeout = 60

# Longer than a gateway keeps its connections, so that it is never the one surprised.
keepalive = 75

# One socket per user in the home directory: two instances would fight for it.
control_socket_disable = True

# The route is the path alone: no header of a peer may change it, not even of one on loopback.
forwarder_headers = ""
secure_scheme_headers = {}

logger_class = Logger

__all__ = ["on_starting"]
