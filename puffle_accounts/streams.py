"""Lines for whoever reads a stream, written without ever waiting for them.

A reader that stalls (a full pipe) or is gone (a broken one) must not hang a worker: what is not
taken now waits here, up to a bound; beyond that it is dropped, and counted.

Imported by gunicorn's master before a worker patches the standard library, so it imports
nothing but the standard library.
"""

from __future__ import annotations

import _socket  # gevent does not patch it: its own sockets wait
import _thread  # what it starts is waited for by nobody, not even at its start
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

MOST_WAITING = 1 << 20  # bytes of lines that wait for a reader
PAUSE = 0.05  # seconds until it is tried again
SAID_EVERY = 10.0  # seconds
LAST_WAIT = 1.0  # seconds that an ending process waits for it

Write = Callable[[bytes], int]

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # Python 3.10 has no subscript for it

log = logging.getLogger(__name__)


class Outlet:
    """One stream, for all threads and greenlets of this process.

    Args:
        write: writes some bytes without waiting and returns how many were taken.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)  # what waits is the parent's

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may log, too
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._retrying = False

    def put(self, line: bytes) -> None:
        """Write a line, now or as soon as there is room."""
        with self._lock:
            if self._size + len(line) > MOST_WAITING:
                self._dropped += 1
                return
            self._waiting.append(line)
            self._size += len(line)
            self._write_waiting()
            if self._waiting and not self._retrying:
                self._retrying = True
                try:
                    _thread.start_new_thread(self._retry, ())
                except RuntimeError:  # no thread is left: the next line tries again
                    self._retrying = False

    def _write_waiting(self) -> None:
        with suppress(BlockingIOError):
            while self._waiting:
                line = self._waiting.popleft()
                self._size -= len(line)
                try:
                    rest = line[self._write(line) :]
                except BlockingIOError:
                    self._put_back(line)
                    raise
                except OSError:  # nobody reads any more, and nobody ever will
                    rest = b""
                if rest:
                    self._put_back(rest)

    def _put_back(self, line: bytes) -> None:
        self._waiting.appendleft(line)
        self._size += len(line)

    def _retry(self) -> None:
        while self._retrying:
            time.sleep(PAUSE)
            with self._lock:
                self._write_waiting()
                self._retrying = bool(self._waiting)
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("log.dropped", extra={"lines": dropped})

    def finish(self) -> None:
        """Give the reader a moment to take what is left, before the process ends."""
        until = time.monotonic() + LAST_WAIT
        while self._waiting and time.monotonic() < until:
            with self._lock:
                self._write_waiting()
            time.sleep(PAUSE if self._waiting else 0)
        self._waiting.clear()


class Handler(_StreamHandler):
    """Writes by an outlet; the stream says how lines are encoded."""

    def __init__(self, stream: TextIO, outlet: Outlet) -> None:
        super().__init__(stream)
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line, or keep it for later."""
        try:
            line = self.format(record) + self.terminator
            self._outlet.put(line.encode(self.stream.encoding, "backslashreplace"))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Called by `logging` as the process ends."""
        self._outlet.finish()


def handler(stream: TextIO) -> logging.StreamHandler[TextIO]:
    """Return a handler that waits for no reader; a file needs none, it takes everything."""
    try:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            return Handler(stream, _outlet(stream.fileno(), found))
    except (OSError, ValueError):
        pass  # no descriptor, or one that cannot be opened once more
    return logging.StreamHandler(stream)


def lose_quietly(handler: logging.Handler) -> None:
    """Let a handler say that it has lost a line, as on a full disk, but not of what.

    `logging` itself prints the record's arguments, which for gunicorn's access log are every
    header of the request, the API key among them. What is said may be lost as well, so how many
    they were is said once a line has been written again.
    """
    emit, lost = handler.emit, 0

    def count(record: logging.LogRecord) -> None:
        nonlocal lost
        lost += 1
        _lost(record)

    def emit_and_tell(record: logging.LogRecord) -> None:
        nonlocal lost
        before = lost
        emit(record)
        if before == lost and lost:
            lost = 0
            log.warning("log.dropped", extra={"lines": before})

    vars(handler).update(handleError=count, emit=emit_and_tell)


_next_said = 0.0


def _lost(_: logging.LogRecord) -> None:
    global _next_said
    if time.monotonic() < _next_said:
        return
    _next_said = time.monotonic() + SAID_EVERY  # before it is said: that may be lost, too
    error = sys.exc_info()[1]
    reason = getattr(error, "strerror", None) or type(error).__name__
    log.error("log.lost", extra={"reason": reason})


def replace_closed() -> None:
    """Let a stream that was closed before this process began lead nowhere, instead of failing.

    Its number would be that of the next file or socket, and take what is meant for the stream.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends


_outlets: dict[tuple[int, int, int], Outlet] = {}  # a stream has one, or lines would pass another


def _outlet(descriptor: int, found: os.stat_result) -> Outlet:
    key = (descriptor, found.st_dev, found.st_ino)
    if key not in _outlets:
        by_socket = stat.S_ISSOCK(found.st_mode)
        _outlets[key] = Outlet(_to_socket(descriptor) if by_socket else _to_file(descriptor))
    return _outlets[key]


def _to_socket(descriptor: int) -> Write:
    """As journald's is; what does not wait is the call, for others share the socket."""
    sock = _socket.socket(fileno=os.dup(descriptor))
    return lambda data: sock.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)


def _to_file(descriptor: int) -> Write:
    """A pipe or a terminal, opened once more, for others share the descriptor's own flags."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    own = os.open(f"/proc/self/fd/{descriptor}", flags)
    return lambda data: os.write(own, data)
