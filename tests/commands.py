"""The service's programs, forked where nothing depends on what a new interpreter imports.

What that alone can show, `Stack.start_command`, `support.run` and gunicorn's own command line show.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from pkgutil import resolve_name

from forked import MASTER, SERVICE, Forked, become

from puffle_accounts.processes import rehearsal

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
    process = ForkedProgram(program, arguments, environ, folder)
    try:
        said = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, *said)


class ForkedProgram(Forked):
    """A program that is under way; arguments as of `run_program`."""

    def __init__(
        self, program: str, arguments: tuple[str, ...], environ: dict[str, str], folder: Path
    ) -> None:
        sys.audit("subprocess.Popen", program, arguments, None, environ)
        self._place = tempfile.TemporaryDirectory()
        self._files = [Path(self._place.name, name) for name in ("out", "err")]
        super().__init__(SERVICE, _run, program, arguments, environ, folder, *self._files)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it wrote to standard output and standard error."""
        self.wait(timeout)
        out, err = (file.read_text() for file in self._files)
        self._place.cleanup()
        return out, err


def _run(
    program: str,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    folder: Path,
    out: Path,
    err: Path,
) -> None:
    become(environ, folder, {1: out, 2: err})
    sys.argv = [program.replace("_", "-"), *arguments]
    resolve_name(PROGRAMS[program])()


class ForkedGunicorn(Forked):
    """A gunicorn.

    Under gevent without its rehearsal, which would import all once more, a third of a start; those
    that are started by their command line have theirs.

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
        if "gthread" in arguments:
            server, serve = SERVICE, _serve
        else:
            server, serve = MASTER, _serve_unrehearsed
        super().__init__(server, serve, arguments, environ, folder, log, listener)


def _serve_unrehearsed(*arguments: object) -> None:
    rehearsal.rehearse = lambda: None
    _serve(*arguments)


def _serve(
    arguments: tuple[str, ...],
    environ: dict[str, str],
    folder: Path,
    log: Path,
    listener: socket.socket,
) -> None:
    os.setsid()
    become(environ, folder, {1: log, 2: log})
    sys.argv = ["gunicorn", "--bind", f"fd://{listener.detach()}", *arguments]
    resolve_name(PROGRAMS["gunicorn"])()
