"""How a worker of gunicorn's begins, and ends."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from puffle_accounts.processes import scarcity


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
