"""What gunicorn reads in the environment by itself, looked at before it does.

`puffle-accounts serve` looks at all of it. Under the bare `gunicorn` the settings can look at
what is read after them; the rest ends in gunicorn's own words, or in a traceback.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, MutableMapping
from contextlib import redirect_stderr, redirect_stdout

from puffle_accounts.environment import count
from puffle_accounts.errors import ConfigError

PROCESSES, ADDRESSES, ARGUMENTS = "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"
NUMBERS = ("LISTEN_FDS", "LISTEN_PID", "GUNICORN_PID")
MOST_WORKERS = 1000  # each is a process; beyond that it is a slip, and the machine would be gone


def tidy(environ: MutableMapping[str, str]) -> None:
    """Drop what is blank, which gunicorn takes for a value.

    Raises:
        ConfigError: a value that is left cannot be used.
    """
    for name in (PROCESSES, *NUMBERS):
        if not environ.get(name, "-").strip():
            del environ[name]
    for name in NUMBERS:
        _number(environ, name)
    if "GUNICORN_PID" in environ and not ("GUNICORN_FD" in environ or "LISTEN_FDS" in environ):
        raise ConfigError("GUNICORN_PID is gunicorn's own, for a USR2 of its own; unset it")


def workers(environ: Mapping[str, str], default: int) -> int:
    """Return how many workers are asked for.

    Raises:
        ConfigError: it is no number, none or too many.
    """
    return count(environ, PROCESSES, default, MOST_WORKERS)


def look(environ: MutableMapping[str, str]) -> None:
    """Make it tidy, and look at what gunicorn reads before it knows any settings.

    Args:
        environ: of this process, which gunicorn itself reads, too.

    Raises:
        ConfigError: a value cannot be used.
    """
    tidy(environ)
    workers(environ, 1)
    from gunicorn.config import Config  # which reads the environment while it is imported

    try:
        settings = Config(prog=ARGUMENTS)
        settings.set("forwarded_allow_ips", environ.get(ADDRESSES, ""))
    except ValueError as error:
        raise ConfigError(f"{ADDRESSES}: {error}") from error
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            settings.parser().parse_args(settings.get_cmd_args_from_env())
    except ValueError as error:
        raise ConfigError(f"{ARGUMENTS}: {error}") from error
    except SystemExit as ended:
        if ended.code:
            raise ConfigError(said.getvalue().splitlines()[-1]) from ended


def _number(environ: Mapping[str, str], name: str) -> None:
    value = environ.get(name, "0").strip()
    if not (value.isascii() and value.isdigit()):
        raise ConfigError(f"{name} must be a whole number; it is set by whoever starts gunicorn")
