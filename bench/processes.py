"""Start and stop what is measured, and read what it used."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 20
STOP_LIMIT = 15


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process and its descendants, listening on a port."""

    def __init__(self, pid, port):
        self.root, self.port = psutil.Process(pid), port

    def members(self):
        return [self.root, *self.root.children(recursive=True)]

    def cpu(self):
        """Seconds of processor used so far."""
        times = [process.cpu_times() for process in self.members()]
        return sum(time.user + time.system for time in times)

    def rss(self):
        return sum(process.memory_info().rss for process in self.members())


@contextmanager
def running(words, port, cwd=ROOT, environment=None):
    """A server that listens on `port`; it is ended with the block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            words, cwd=cwd, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(process, port, log)
            yield Server(process.pid, port)
        finally:
            end(process)


def wait_for(process, port, log):
    """Until a worker answers: the socket alone is open long before."""
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit and process.poll() is None:
        if answers(port):
            return
        time.sleep(0.05)
    log.seek(0)
    raise RuntimeError(f"{process.args} does not answer:\n{log.read()}")


def answers(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=START_LIMIT)
    try:
        connection.request("DELETE", "/after/0/ready")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()


def end(process):
    """Politely first; hung requests are not waited for."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def provider():
    port = free_port()
    return running([sys.executable, "-m", "bench.provider", str(port)], port)


@contextmanager
def load(module="bench.load", **options):
    """The load generator at work, or the floor; its standard output is its summary."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words = [sys.executable, "-m", module, *words]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def summary(process):
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the load generator failed")
    return json.loads(printed)
