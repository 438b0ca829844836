"""gunicorn's logs, in the form of the service's own."""

from __future__ import annotations

import logging
import os
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from puffle_accounts import streams
from puffle_accounts.config import log_format
from puffle_accounts.logs import formatter
from puffle_accounts.processes import master
from puffle_accounts.text import hide_secrets_of


class Logger(GunicornLogger):
    """gunicorn's logs, access log included, in the form of the service's own."""

    def setup(self, cfg: Any) -> None:
        master.look(cfg)  # here, since nothing of ours is shown the settings earlier
        super().setup(cfg)
        hide_secrets_of(os.environ)
        ours = formatter(log_format(os.environ))
        for logger in (self.error_log, self.access_log):
            logger.handlers = [*map(_unhindered, logger.handlers)]
            for handler in logger.handlers:
                handler.setFormatter(ours)
                streams.lose_quietly(handler)


def _unhindered(handler: logging.Handler) -> logging.Handler:
    """Return what writes to a stream without waiting for its reader; a file's stays."""
    if type(handler) is not logging.StreamHandler:
        return handler
    ours = streams.handler(handler.stream)
    vars(ours)["_gunicorn"] = True  # by which gunicorn knows what to replace when it is reloaded
    return ours
