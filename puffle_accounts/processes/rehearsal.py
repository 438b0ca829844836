"""The application is loaded once before gunicorn has a worker do it."""

from __future__ import annotations

import importlib
import logging
import os
import sys

from puffle_accounts.processes import instrumented
from puffle_accounts.processes.refusal import APP_LOAD_ERROR


def rehearse() -> None:
    """Load the application in a process of its own, to end with one line if it refuses to start.

    Plugins read their own variables, and the master must not import them; each worker would say
    the same again, in the middle of gunicorn's own lines. What the master has imported already
    is there after a fork: half of what a new interpreter would have to do.

    Raises:
        SystemExit: it refuses.
    """
    outside, inside = os.pipe()
    child = os.fork()
    if not child:
        os._exit(_load_application(inside))
    os.close(inside)
    with open(outside, errors="backslashreplace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == APP_LOAD_ERROR:
        sys.stderr.write(said)
        sys.exit(APP_LOAD_ERROR)


def _load_application(errors: int) -> int:
    """Return the exit status of a worker that loads it, and write to a file what that says."""
    try:
        os.dup2(errors, 2)
        logging.disable()
        instrumented.never()
        importlib.import_module("puffle_accounts.wsgi")
    except SystemExit as refused:
        sys.stderr.flush()
        return APP_LOAD_ERROR if refused.code == APP_LOAD_ERROR else 1
    except BaseException:  # the worker will say it
        return 1
    return 0
