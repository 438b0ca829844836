"""The processes of the product, services and retriers, which can be ended and started again."""

import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
from support import ROOT, Gunicorn

from soak.providers import RETRIERS, SERVICE

WORKERS = 2
TEARDOWN = 2.0  # seconds for all hooks of a request
LEASE = TEARDOWN + 10.0
EVERY = 1.0  # seconds between two passes of a retrier
POLITE = 60  # seconds in which a process ends that is asked to
#: One line for each request: by whom it was asked for, and its milliseconds.
ACCESS = ("--access-logfile", "-", "--access-logformat", "served %({x-request-id}o)s %(M)s")


class Unit:
    """What a service manager looks after."""

    def __init__(self, world, number, name):
        self._world, self._number = world, number
        self.name = f"{name}-{number}"
        self.log = world.folder / f"{self.name}.log"
        self.process = None
        self.lock = threading.RLock()  # held while it is ended on purpose

    def restart(self, number=signal.SIGTERM, **environ):
        """End it by a signal, and start another."""
        with self.lock:
            self.end(number)
            self.start(**environ)

    def end(self, number=signal.SIGTERM):
        """Send a signal that it must end by; what does not is found wrong, and killed."""
        self.process.send_signal(number)
        try:
            self.process.wait(POLITE)
        except subprocess.TimeoutExpired:
            self._world.book.found_wrong(self.name, f"it did not end by signal {number}")
            self.process.kill()
            self.process.wait()

    def look_after(self):
        """Start it again if it has ended by itself, which is wrong."""
        if self.lock.acquire(blocking=False):
            try:
                status = self.process.poll()
                if status is not None:
                    self._world.book.found_wrong(self.name, f"it ended by itself, status {status}")
                    self.start()
            finally:
                self.lock.release()

    def kill(self):
        """End it with all that it has started, whatever state it is in."""
        if psutil.pid_exists(self.process.pid):
            process = psutil.Process(self.process.pid)
            _kill([*process.children(recursive=True), process])
        self.process.wait()


class Service(Unit):
    """A gunicorn on a port that stays its own, as a service manager's socket does."""

    def __init__(self, world, number):
        super().__init__(world, number, "service")
        self._left = []  # workers of masters that were killed, which end a little later
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "{}:{}".format(*self._listener.getsockname())

    def start(self, **environ):
        self._gunicorn = Gunicorn(
            self._world.stack,
            self.log,
            *("--workers", str(WORKERS), *ACCESS),
            listener=self._listener,
            by=self._world.told_by(self._number, environ),
            **self._world.environ_of(SERVICE, self._number),
            **environ,
        )
        self.process = self._gunicorn.process

    def workers(self):
        """Return the workers; none as long as the master is not ready for signals."""
        with suppress(psutil.NoSuchProcess):
            master = psutil.Process(self.process.pid)
            return master.children() if _catches(master, signal.SIGHUP) else []
        return []

    def end(self, number=signal.SIGTERM):
        self._left += self.workers()
        super().end(number)

    def crash(self):
        """Master and workers at once, as when a machine goes."""
        with self.lock:
            self.kill()
            self.start()

    def kill(self):
        super().kill()
        _kill(self._left)


class Retrier(Unit):
    """`orphans retry --every`."""

    def __init__(self, world, number):
        super().__init__(world, number, "retrier")
        self.address = RETRIERS[number]

    def start(self, **environ):
        words = (sys.executable, "-m", "puffle_accounts", "orphans", "retry", "--every", str(EVERY))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._world.told_by(self._number, environ), *words],
                cwd=ROOT,
                env=self._world.stack.process_environ(
                    **self._world.environ_of(self.address, self._number), **environ
                ),
                stdout=log,
                stderr=log,
            )


def _catches(process, number):
    """Whether a process has set up what it does upon a signal."""
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        [caught] = re.findall(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
        return bool(int(caught, 16) >> (number - 1) & 1)
    return False


def _kill(processes):
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()
