"""The ledger of what was left behind upstream: claim, put off, park, forget."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from puffle_accounts import clock, context, leases
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.orphans import origins
from puffle_accounts.orphans.due import MOST_ATTEMPTS, PARKED, WAITING, pause
from puffle_accounts.orphans.record import ATTEMPTS
from puffle_accounts.teardown import Outcome
from puffle_accounts.text import one_line

NOW = timedelta()

# Apart, so that each goes through the index: what has been due, and what cannot be genuine.
CLAIM = """
WITH since AS (
    SELECT id FROM orphans WHERE plugin = ? AND {which} AND {since} <= ? AND {free}
    ORDER BY {since} LIMIT ? {lock}
), astray AS (
    SELECT id FROM orphans WHERE plugin = ? AND {which} AND {since} > clock(?) AND {free}
    LIMIT ? {lock}
)
UPDATE orphans SET leased_until = clock(?)
WHERE id IN (SELECT id FROM since UNION ALL SELECT id FROM astray LIMIT ?)
RETURNING id, plugin, account_id, user_id, CAST(account AS TEXT), attempts, parked_at,
    request_id, leased_until"""
FREE = f"(leased_until IS NULL OR {leases.over('leased_until')})"

COUNT = """
SELECT count(*) FROM orphans
WHERE plugin = ? AND {which} AND ({since} <= ? OR {since} > clock(?))"""

POSTPONE = f"""
UPDATE orphans SET attempts = {ATTEMPTS} + 1, reason = ?, next_attempt_at = clock(?),
    parked_at = clock(?), leased_until = NULL
WHERE id = ? AND leased_until = ?"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An orphan that nobody else works on until its lease runs out.

    Args:
        key: its id, as the database has it.
        account: `None` if the snapshot was written by hand or by another version.
        leased_until: what the database said; who has this, has the lease.
        claimed_at: when the lease began, in seconds of `time.monotonic()`.
        origin: names the trace of the DELETE that made it, where that was traced.
    """

    key: Any
    plugin: str
    account_id: str
    user_id: str
    account: Account | None
    attempts: Any
    parked: bool
    request_id: str | None
    leased_until: str
    claimed_at: float
    origin: str | None = None

    @property
    def id(self) -> str:
        """Its id, for people."""
        return str(self.key)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The table `orphans` of one database, as it is changed.

    Args:
        lease: how long a claimed orphan is kept from others.
        jitter: returns a random number from the first to the second argument.
    """

    database: Database
    lease: timedelta
    jitter: Callable[[float, float], float] = random.uniform

    def now(self) -> datetime:
        """Return the present moment by the database's clock."""
        with self.database.reading():
            return self.database.now()

    def claim(self, plugin: str, most: int, until: datetime, parked: bool = False) -> list[Claimed]:
        """Lease up to `most` orphans of a plugin, by one statement.

        Args:
            until: take what was due by then, by the database's clock; a run that passes its own
                beginning tries no orphan twice.
            parked: take what was parked by then instead.
        """
        turn = PARKED if parked else WAITING
        lock = "FOR UPDATE SKIP LOCKED" if isinstance(self.database, Postgres) else ""
        with self.database.writing():
            rows = self.database.sql(
                CLAIM.format(which=turn.which, since=turn.since, free=FREE, lock=lock),
                *(plugin, clock.stamp(until), *leases.HELD, most),
                *(plugin, turn.furthest, *leases.HELD, most),
                *(self.lease, most),
            ).fetchall()
        return [_claimed(row) for row in rows]

    def count(self, plugin: str, until: datetime, parked: bool = False) -> int:
        """Return how many there are to claim, those included that others work on."""
        turn = PARKED if parked else WAITING
        statement = COUNT.format(which=turn.which, since=turn.since)
        with self.database.reading():
            counted: tuple[int] = self.database.sql(
                statement, plugin, clock.stamp(until), turn.furthest
            ).fetchone()
        return counted[0]

    def renew(self, orphan: Claimed) -> Claimed | None:
        """Lease a claimed orphan anew; `None` where another has taken it over meanwhile."""
        with self.database.autocommitting():
            renewed = self.database.sql(
                "UPDATE orphans SET leased_until = clock(?) WHERE id = ? AND leased_until = ?"
                " RETURNING leased_until",
                self.lease,
                orphan.key,
                orphan.leased_until,
            ).fetchall()
        for (leased_until,) in renewed:
            until, now = clock.bound(leased_until), time.monotonic()
            return replace(orphan, leased_until=until, claimed_at=now)
        return None

    def release(self, orphans: Iterable[Claimed]) -> None:
        """Give back what was claimed and not tried."""
        for orphan in orphans:
            with self.database.autocommitting():
                self.database.sql(
                    "UPDATE orphans SET leased_until = NULL WHERE id = ? AND leased_until = ?",
                    orphan.key,
                    orphan.leased_until,
                )

    def forget(self, orphan: Claimed) -> None:
        """Delete an orphan of which nothing is left, unless a DELETE has failed again meanwhile."""
        with self.database.autocommitting():
            self.database.sql(
                "DELETE FROM orphans WHERE id = ? AND attempts = ?", orphan.key, orphan.attempts
            )

    def park(self, orphan: Claimed, reason: str) -> None:
        """Park an orphan that cannot be tried."""
        with self.database.autocommitting():
            self.database.sql(
                "UPDATE orphans SET reason = ?, parked_at = clock(?), leased_until = NULL"
                " WHERE id = ?",
                reason,
                NOW,
                orphan.key,
            )

    def postpone(self, orphan: Claimed, failure: Outcome) -> bool:
        """Put an orphan off until its next attempt, or park it; return whether it is parked."""
        attempts = 1 + (orphan.attempts if isinstance(orphan.attempts, int) else 0)
        in_order = attempts in range(1, MOST_ATTEMPTS)
        parked = failure.permanent or orphan.parked or not in_order
        with self.database.autocommitting():
            self.database.sql(
                POSTPONE,
                failure.failure,
                pause(attempts, failure, self.jitter),
                NOW if parked else None,
                orphan.key,
                orphan.leased_until,
            )
        return parked

    def drop(self, key: Any, reason: str) -> bool:
        """Delete an orphan on a person's word; return whether it was there.

        Args:
            key: its id, as the database has it.
        """
        with self.database.writing():
            rows = self.database.sql(
                "DELETE FROM orphans WHERE id = ? RETURNING plugin, account_id", key
            ).fetchall()
        for plugin, account_id in rows:
            fields = {"orphan": str(key), "plugin": str(plugin), "account": str(account_id)}
            log.warning("orphan.dropped", extra=fields | {"reason": one_line(reason)})
        return bool(rows)


def _claimed(row: Any) -> Claimed:
    key, plugin, account_id, user_id, account, attempts, parked_at, request_id, leased_until = row
    return Claimed(
        key=key,
        plugin=plugin,
        account_id=str(account_id),
        user_id=str(user_id),
        account=_snapshot(account),
        origin=origins.of(account),
        attempts=attempts,
        parked=parked_at is not None,
        request_id=request_id if context.is_request_id(request_id) else None,
        leased_until=clock.bound(leased_until),
        claimed_at=time.monotonic(),
    )


def _snapshot(text: str) -> Account | None:
    try:
        return Account.from_json(text)
    except (ValueError, TypeError):
        return None
