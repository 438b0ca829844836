"""What a worker does while the machine has no file descriptor or no thread left for it.

gunicorn's gthread dies of either, with all that it works on, and so does the next; gevent
accepts again by itself, and says so with a traceback every second, in a form of its own.
"""

from __future__ import annotations

import errno
import logging
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE = 0.25  # seconds until a connection is accepted again: those that end make room
SAID_EVERY = 10.0  # seconds

log = logging.getLogger(__name__)


class Complaint:
    """Says what is scarce, now and then."""

    def __init__(self) -> None:
        self._next = 0.0
        self._lock = threading.Lock()

    def say(self, error: BaseException) -> None:
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + SAID_EVERY
        log.error("service.scarce", extra={"reason": f"nobody new is served: {error}"})


class Threads(ThreadPoolExecutor):
    """Threads for requests; what finds no new one waits for one of those that are there."""

    _complaint = Complaint()

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:  # what was submitted is in the queue by now
            self._complaint.say(error)


def endure(worker: Any) -> None:
    """Let a worker of gunicorn's go on, and accept again once there is room.

    Args:
        worker: before it runs.
    """
    if hasattr(worker, "tpool"):
        worker.tpool = Threads(max_workers=worker.cfg.threads)
        complaint = Complaint()
        worker.accept = patient(worker.accept, complaint)
        connection = import_module("gunicorn.workers.gthread").TConn
        if hasattr(connection, "wait_for_data"):  # not every version does
            connection.wait_for_data = frugal(connection.wait_for_data, complaint)
    elif "gevent" in worker.cfg.worker_class_str:
        _tell_in_our_form()


def patient(accept: Callable[[Any], None], complaint: Complaint) -> Callable[[Any], None]:
    """Return what accepts, but for a moment does not where there is no descriptor left."""

    def accept_or_wait(listener: Any) -> None:
        try:
            accept(listener)
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            complaint.say(error)
            time.sleep(PAUSE)

    return accept_or_wait


def frugal(
    wait: Callable[[Any, float], bool], complaint: Complaint
) -> Callable[[Any, float], bool]:
    """Return what waits for a request to begin, without a descriptor where there is none left."""

    def wait_for_data(connection: Any, seconds: float) -> bool:
        try:
            return wait(connection, seconds)
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            complaint.say(error)
        poll = select.poll()  # which costs none
        poll.register(connection.sock, select.POLLIN)
        connection.data_ready = bool(poll.poll(seconds * 1000))
        return bool(connection.data_ready)

    return wait_for_data


def _tell_in_our_form() -> None:
    hub, complaint = import_module("gevent").get_hub(), Complaint()
    otherwise = hub.handle_error

    def handle(context: Any, type: Any, value: Any, tb: Any) -> None:
        if hasattr(context, "do_read") and getattr(value, "errno", None) in SCARCE:
            complaint.say(value)
        else:
            otherwise(context, type, value, tb)

    hub.handle_error = handle
