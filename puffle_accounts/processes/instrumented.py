"""`opentelemetry-instrument gunicorn …`: each worker is instrumented, and the master is not.

That command lets Python load OpenTelemetry's SDK before anything else, TLS included, and gevent
could patch it no more. So the master begins anew without it, in the same process, and each
worker loads it once gevent has patched. Imported by gunicorn's master, so it imports nothing.
"""

from __future__ import annotations

import os
import sys

LOADER = "opentelemetry.instrumentation.auto_instrumentation"
TO_DO = "_PUFFLE_ACCOUNTS_INSTRUMENT"  # in the environment of a master that has begun anew


def leave_to_workers() -> None:
    """Begin anew if the SDK has been loaded into gunicorn's master."""
    loaded = getattr(sys.modules.get(LOADER), "__file__", None)
    if loaded and TO_DO not in os.environ:
        os.environ["PYTHONPATH"] = _without(os.path.dirname(loaded))
        os.environ[TO_DO] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - as it was begun


def in_worker() -> None:
    """Do in a worker what the command would have done in the master."""
    if TO_DO in os.environ:
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()


def never() -> None:
    """Instrument nothing in this process."""
    os.environ.pop(TO_DO, None)


def _without(folder: str) -> str:
    """Return `PYTHONPATH` without the folder whose `sitecustomize` loads the SDK."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(path for path in paths if path != folder)
