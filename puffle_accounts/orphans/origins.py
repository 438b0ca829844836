"""Which DELETE made an orphan, for a retry's trace to link to.

In `orphans.traceparent`, as the W3C's header has it; no statement is made where nothing traces.
"""

from __future__ import annotations

from puffle_accounts.database import Database
from puffle_accounts.telemetry import telemetry


def keep(database: Database, orphan_id: str) -> None:
    """Remember the trace under way as the one that made an orphan, within its transaction."""
    origin = telemetry.origin()
    if origin:
        database.sql("UPDATE orphans SET traceparent = ? WHERE id = ?", origin, orphan_id)


def of(database: Database, orphan_id: str) -> str | None:
    """Return what was remembered, `None` if nothing was."""
    if not telemetry.traces:
        return None
    with database.reading():
        row = database.sql("SELECT traceparent FROM orphans WHERE id = ?", orphan_id).fetchone()
    return row[0] if row else None
