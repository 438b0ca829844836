"""A plugin's fault: it raised what it did not announce, or gave what its hook may not give."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from puffle_accounts.errors import PluginFault, TeardownFailed

log = logging.getLogger(__name__)


def is_fault(error: BaseException) -> bool:
    """Whether an exception of a plugin is its fault, and no announced failure."""
    return isinstance(error, PluginFault) or not isinstance(error, TeardownFailed)


def report(error: BaseException, hook: str, fields: Mapping[str, object]) -> None:
    """Log a plugin's fault as an error, with its traceback if there is one of the plugin's.

    Args:
        hook: which it was that failed.
        fields: of the line, `plugin` and `outcome` at least.
    """
    trace = None if isinstance(error, PluginFault) else error
    log.error("plugin.failed", extra={**fields, "hook": hook}, exc_info=trace)
