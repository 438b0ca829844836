"""What a start says of itself in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version

from puffle_accounts.config import VARIABLES, Config
from puffle_accounts.environment import text, unknown
from puffle_accounts.hooks.registry import Plugins

DISTRIBUTION = "puffle-accounts"
EMBEDDED = "DATABASE_URL is not set: an SQLite file in the current folder is used"

log = logging.getLogger(__name__)


def warn_of_unknown(environ: Mapping[str, str], plugins: Plugins) -> None:
    """Warn of variables that look like ours and change nothing."""
    for name, hint in unknown(environ, [*VARIABLES, *plugins.variables]).items():
        log.warning("variable.unknown", extra={"variable": name, "reason": hint})


def report(environ: Mapping[str, str], plugins: Plugins, worker_class: str) -> None:
    """Say, once for all workers, what has started.

    Args:
        worker_class: gunicorn's name of it.
    """
    fields = {
        "version": version(DISTRIBUTION),
        "database": Config.from_environ(environ).database,
        "plugins": sorted(plugin.name for plugin in plugins.active),
        "worker_class": worker_class,
    }
    log.info("service.started", extra=fields)
    if text(environ, "DATABASE_URL") is None:
        log.warning("database.embedded", extra={"reason": EMBEDDED})
