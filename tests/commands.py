"""`puffle-accounts` in a process of its own, forked from one that has imported it already.

To import the service takes half a second of a processor, and the tests run hundreds of commands.
What a new interpreter alone can show, `Stack.start_command` and `support.run` show.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        *("puffle_accounts.__main__", "puffle_accounts.database.pool"),
        *("puffle_unipile", "puffle_instantly", "puffle_agentmail"),
    ]
)


def run_command(
    arguments: tuple[str, ...], environ: dict[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run a command to its end.

    Args:
        environ: all of its environment.
        timeout: seconds.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
    """
    sys.audit("subprocess.Popen", "puffle-accounts", arguments, None, environ)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKED.Process(target=_run, args=(arguments, environ, os.getcwd(), out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_text(), err.read_text())
        said = out.read_text(), err.read_text()
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def _run(
    arguments: tuple[str, ...], environ: dict[str, str], folder: str, out: Path, err: Path
) -> None:
    from puffle_accounts.__main__ import main

    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path[:0] = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["puffle-accounts", *arguments]
    main()
