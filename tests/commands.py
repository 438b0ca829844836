"""The programs in processes of their own, forked from one that has imported the service already.

To import it takes half a second of a processor, a gunicorn does so three times, and the tests run
hundreds of both. What a new interpreter alone can show, `Stack.start_command`, `support.run` and
gunicorn's own command line show.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from pkgutil import resolve_name

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        *("puffle_accounts.__main__", "puffle_accounts.database.pool"),
        *("puffle_unipile", "puffle_instantly", "puffle_agentmail"),
        *("gunicorn.app.wsgiapp", "gunicorn.workers.gthread"),
    ]
)


PROGRAMS = {
    "puffle_accounts": "puffle_accounts.__main__:main",
    "flask": "flask.cli:main",
    "gunicorn": "gunicorn.app.wsgiapp:run",
}


def run_program(
    program: str, arguments: tuple[str, ...], environ: dict[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess:
    """Run a program to its end.

    Args:
        program: of `PROGRAMS`, by the name of its module.
        environ: all of its environment.
        folder: where it is started.
        timeout: seconds.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
    """
    sys.audit("subprocess.Popen", program, arguments, folder, environ)
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        process = FORKED.Process(target=_run, args=(program, arguments, environ, folder, out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_text(), err.read_text())
        said = out.read_text(), err.read_text()
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def _run(
    program: str,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    folder: Path,
    out: Path,
    err: Path,
) -> None:
    _become(environ, folder, {1: out, 2: err})
    sys.argv = [program.replace("_", "-"), *arguments]
    resolve_name(PROGRAMS[program])()


class ForkedGunicorn:
    """A gunicorn that has been forked, with as much of `subprocess.Popen` as the tests ask for.

    For gthread: gevent has to patch before the service is imported, and here it has been.

    Args:
        environ: all of its environment.
        log: the file that standard output and standard error are added to.
        listener: the socket that it answers on.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        environ: dict[str, str],
        folder: Path,
        log: Path,
        listener: socket.socket,
    ) -> None:
        sys.audit("subprocess.Popen", "gunicorn", arguments, None, environ)
        self._process = FORKED.Process(
            target=_serve, args=(arguments, environ, folder, log, listener), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("gunicorn", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _serve(
    arguments: tuple[str, ...],
    environ: dict[str, str],
    folder: Path,
    log: Path,
    listener: socket.socket,
) -> None:
    os.setsid()
    _become(environ, folder, {1: log, 2: log})
    sys.argv = ["gunicorn", "--bind", f"fd://{listener.detach()}", *arguments]
    resolve_name(PROGRAMS["gunicorn"])()


def _become(environ: dict[str, str], folder: Path, files: dict[int, Path]) -> None:
    """Be as a process would that was started there, with this environment and these files."""
    for number, path in files.items():
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    paths = environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(folder), *filter(None, paths)]
