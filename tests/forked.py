"""Processes that are forked from one that has imported already what they will need.

To import the service takes half a second of a processor, a gunicorn does so three times, and the
tests run hundreds of both.

Gevent has to patch before the service is imported. So a gunicorn with such workers is forked from a
process that has imported what its master imports, and of libraries what gevent has nothing to do
with, which is a fifth of what each worker would import.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path

SERVICE = forkserver.ForkServer()
SERVICE.set_forkserver_preload(
    [
        *("puffle_accounts.__main__", "puffle_accounts.database.pool"),
        *("puffle_unipile", "puffle_instantly", "puffle_agentmail"),
        *("gunicorn.app.wsgiapp", "gunicorn.workers.gthread"),
    ]
)

#: Libraries that a worker imports and that gevent has nothing to do with, as far as they are here.
UNPATCHED = tuple(
    name
    for name in ("charset_normalizer", "rich.console", "rich.traceback")
    if importlib.util.find_spec(name.partition(".")[0])
)

#: What `puffle_accounts.serving` imports, but not itself, which acts on its environment at once.
MASTER = forkserver.ForkServer()
MASTER.set_forkserver_preload(
    [
        *("gunicorn.app.wsgiapp", "gunicorn.workers.ggevent"),
        *("puffle_accounts.processes.master", "puffle_accounts.processes.worker"),
        "puffle_accounts.processes.rehearsal",
        *UNPATCHED,
    ]
)

_one_at_a_time = threading.Lock()


class Forked:
    """A process, with as much of `subprocess.Popen` as the tests ask for.

    Args:
        server: what it is forked from.
        target: the function that it runs, of a module of the tests.
    """

    def __init__(self, server: forkserver.ForkServer, target, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=target, args=arguments, daemon=True)
        with _one_at_a_time:  # multiprocessing has one server, and asks for it by this name
            usual = forkserver.connect_to_new_process
            forkserver.connect_to_new_process = server.connect_to_new_process
            try:
                self._process.start()
            finally:
                forkserver.connect_to_new_process = usual
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def become(environ: dict[str, str], folder: Path, files: dict[int, Path]) -> None:
    """Be as a process would that was started there, with this environment and these files."""
    for number, path in files.items():
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    paths = environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(folder), *filter(None, paths)]
