"""Which DELETE made an orphan, for a retry's trace to link to.

Kept beside the fields of the snapshot, which every release reads by their names: so a database
has no column more, and where nothing traces, nothing is written.
"""

from __future__ import annotations

import json

from puffle_accounts.telemetry import telemetry

FIELD = "traceparent"  # as the header of the W3C's Trace Context


def keep(snapshot: str) -> str:
    """Return a snapshot that names the trace under way, as it is where there is none.

    Args:
        snapshot: of an account, as JSON.
    """
    origin = telemetry.origin()
    return f'{snapshot[:-1]}, "{FIELD}": "{origin}"}}' if origin else snapshot


def of(snapshot: str) -> str | None:
    """Return what a snapshot names, `None` if it names nothing."""
    if not telemetry.traces or FIELD not in snapshot:
        return None
    try:
        origin = json.loads(snapshot).get(FIELD)
    except (ValueError, AttributeError, RecursionError):
        return None
    return origin if isinstance(origin, str) else None
