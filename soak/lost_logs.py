"""A log that cannot be written: its disk is full, its reader stalls or is gone, it never was one.

Each limit is a generator of four parts, as `soak.scarce` says.
"""

import fcntl
import os
import threading
import time
from contextlib import contextmanager

from soak.full_disks import filled, small_disk

SMALLEST_PIPE = 4096  # bytes
#: Of a request, its key too: whoever writes an access log chooses what stands in it.
EVERYTHING = "%(r)s %({authorization}i)s"


class Fifo:
    """A pipe that takes little, and its reader."""

    def __init__(self, path):
        os.mkfifo(path)
        self._path, self._read = path, b""
        self.open()

    def open(self):
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
        self.go_on()

    def go_on(self):
        self._reads = True
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()

    def stall(self):
        self._reads = False
        self._thread.join()

    def close(self):
        self.stall()
        os.close(self._reader)

    def _read_on(self):
        while self._reads:
            try:
                self._read += os.read(self._reader, 1 << 16)
            except BlockingIOError:
                time.sleep(0.02)

    def text(self):
        return self._read.decode(errors="replace")


@contextmanager
def _fifo(trial):
    trial.log = trial.folder / "fifo"
    fifo = Fifo(trial.log)
    trial.said = fifo.text
    yield fifo
    fifo.close()


def reader_stalls(trial):
    with _fifo(trial) as fifo:
        yield
        yield
        fifo.stall()
        yield
        fifo.go_on()
        yield


def reader_gone(trial):
    with _fifo(trial) as fifo:
        yield
        yield
        fifo.close()
        yield
        fifo.open()
        yield


def disk_of_log(trial):
    with small_disk("1m") as disk:
        trial.log = disk / "log"
        yield
        yield
        with filled(disk):
            before = trial.said()
            yield
            if trial.said() != before:
                trial.found.append("the log's disk was not full")
        try:
            yield
        finally:
            if "log.dropped" not in trial.said():
                trial.found.append("nobody was told that lines were lost")


def disk_of_access_log(trial):
    with small_disk("1m") as disk:
        trial.words = ("--access-logfile", str(disk / "access"), "--access-logformat", EVERYTHING)
        yield
        yield
        with filled(disk):
            yield
        yield


def unwritable(redirection):
    """Standard error that never was one; it stays so."""

    def run_out(trial):
        trial.by = ("sh", "-c", f'exec "$@" {redirection}', "sh")
        yield
        yield
        yield
        yield

    return run_out
