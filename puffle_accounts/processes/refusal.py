"""How a start is refused: one line, and the status by which gunicorn halts.

Imported by gunicorn's master, so it imports nothing but the standard library.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import NoReturn

APP_LOAD_ERROR = 4  # the exit status by which gunicorn says that the application cannot be loaded


def refuse(reason: object) -> NoReturn:
    """End this process.

    Args:
        reason: what cannot be used, and the remedy.

    Raises:
        SystemExit: always.
    """
    print(f"puffle-accounts: {reason}", file=sys.stderr)
    sys.exit(APP_LOAD_ERROR)


def told_in_one_line(
    type: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Say what gunicorn could not open; what nobody expects keeps its traceback.

    For `sys.excepthook`, while gunicorn starts.
    """
    if issubclass(type, (OSError, ValueError)):
        print(f"puffle-accounts: gunicorn cannot start: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(type, error, traceback)
