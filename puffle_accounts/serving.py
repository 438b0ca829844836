"""What gunicorn needs to know of this service. Imported by its master, before gevent patches."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from gunicorn.glogging import Logger as GunicornLogger

from puffle_accounts.config import Config, ConfigError, log_format, text
from puffle_accounts.logs import formatter

GRACE = 5.0  # seconds beyond the teardown deadline: for the row change and the answer


class Logger(GunicornLogger):
    """gunicorn's logs, access log included, in the form of the service's own."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        ours = formatter(log_format(os.environ))
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(ours)


def teardown_timeout() -> float:
    """Return the configured teardown deadline in seconds, or end with one line."""
    return _config().teardown_timeout


def on_starting(server: Any) -> None:
    """Check the configuration once, in the master, before any worker is there.

    Raises:
        SystemExit: a value cannot be used, or two contradict each other.
    """
    config, settings = _config(), server.cfg
    if settings.graceful_timeout <= config.teardown_timeout:
        _refuse(
            f"graceful_timeout ({settings.graceful_timeout} s) must exceed"
            f" PUFFLE_TEARDOWN_TIMEOUT ({config.teardown_timeout:g} s),"
            " or a restart cuts off requests that wait for a provider"
        )
    if settings.worker_class_str == "gthread":
        if text(os.environ, "PUFFLE_PLUGIN_CALLS") is None:
            os.environ["PUFFLE_PLUGIN_CALLS"] = str(max(1, settings.threads // 2))
        if _config().plugin_calls >= settings.threads > 1:
            server.log.warning(
                "PUFFLE_PLUGIN_CALLS should be below the number of threads,"
                " or a hung provider takes them all"
            )


def _config() -> Config:
    try:
        return Config.from_environ(os.environ)
    except ConfigError as error:
        _refuse(str(error))


def _refuse(reason: str) -> NoReturn:
    print(f"puffle-accounts: {reason}", file=sys.stderr)
    sys.exit(4)
