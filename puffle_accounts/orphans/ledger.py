"""The ledger of what was left behind upstream: remember, claim, retry, park."""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from puffle_accounts import clock, resources
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.database.models import Orphan
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import origins
from puffle_accounts.teardown import Outcome
from puffle_accounts.text import one_line

MINUTE = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=24)
LONGEST_RETRY_AFTER = timedelta(days=7)
MOST_ATTEMPTS = 10
OLD = timedelta(days=90)  # parked and older, it is somebody's data that nobody looks after
PAGE = 1000

NAMESPACE = uuid.UUID("6f1d3c1e-3f0b-4d53-9a53-3b1f5d0c6d0a")

RECORD = """
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,
                     created_at, next_attempt_at, parked_at, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    account = excluded.account,
    reason = excluded.reason,
    attempts = orphans.attempts + excluded.attempts,
    next_attempt_at = excluded.next_attempt_at,
    request_id = excluded.request_id,
    parked_at = COALESCE(orphans.parked_at, excluded.parked_at)"""

ADOPT = """
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,
                     created_at, next_attempt_at)
VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)
ON CONFLICT (id) DO NOTHING"""

DUE = "parked_at IS NULL AND next_attempt_at <= ?"
PARKED = "parked_at IS NOT NULL AND parked_at <= ?"
CLAIM = """
WITH next AS (
    SELECT id FROM orphans
    WHERE plugin = ? AND {which} AND (leased_until IS NULL OR leased_until <= ?)
    ORDER BY {order} LIMIT ? {lock}
)
UPDATE orphans SET leased_until = ? WHERE id IN (SELECT id FROM next)
RETURNING id, plugin, account_id, user_id, CAST(account AS TEXT), attempts, parked_at, request_id"""

STANDING = """
SELECT plugin, count(CASE WHEN parked_at IS NULL AND next_attempt_at <= ? THEN 1 END),
    count(CASE WHEN parked_at IS NULL AND next_attempt_at > ? THEN 1 END),
    count(parked_at), min(created_at)
FROM orphans GROUP BY plugin ORDER BY plugin"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An orphan that nobody else works on until its lease runs out.

    Args:
        account: `None` if the snapshot was written by hand or by another version.
        claimed_at: when the lease began, in seconds of `time.monotonic()`.
        origin: names the trace of the DELETE that made it, where that was traced.
    """

    id: str
    plugin: str
    account_id: str
    user_id: str
    account: Account | None
    attempts: int
    parked: bool
    request_id: str | None
    leased_until: str
    claimed_at: float
    origin: str | None = None


class Standing(NamedTuple):
    """How many orphans a plugin has, and since when the oldest is one."""

    plugin: str
    due: int
    waiting: int
    parked: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Ledger:
    """The table `orphans` of one database.

    Args:
        lease: how long a claimed orphan is kept from others.
        now: the clock.
        jitter: returns a random number from the first to the second argument.
    """

    database: Database
    lease: timedelta
    now: Callable[[], datetime] = clock.now
    jitter: Callable[[float, float], float] = random.uniform

    def record(self, failures: Iterable[Outcome], request_id: str | None) -> None:
        """Remember failed calls of a DELETE, within its transaction.

        A first retry may come at once, or when the provider's Retry-After is over.
        """
        now = self.now()
        in_order = sorted(failures, key=lambda failure: failure.plugin)
        for failure in in_order:  # the same for all requests: those of one account cannot deadlock
            account, plugin = failure.account, failure.plugin
            self.database.sql(
                RECORD,
                orphan_id(plugin, account, failure.resource_ids),
                plugin,
                account.id,
                account.user_id,
                origins.keep(account.to_json()),
                failure.failure,
                int(not failure.spared),
                clock.stamp(now),
                clock.stamp(now + _asked(failure)),
                clock.stamp(now) if failure.permanent else None,
                request_id,
            )

    def adopt(self, plugin: Plugin, account: Account, reason: str) -> None:
        """Make an orphan of what a person has named, due at once, within a transaction."""
        now, fields = clock.stamp(self.now()), plugin.resource_ids
        orphan = orphan_id(plugin.name, account, fields)
        self.database.sql(
            ADOPT,
            orphan,
            plugin.name,
            account.id,
            account.user_id,
            account.to_json(),
            one_line(reason),
            now,
            now,
        )
        log.warning(
            "orphan.adopted",
            extra={
                "orphan": orphan,
                "plugin": plugin.name,
                "outcome": ", ".join(resources.named(account, fields).values()),
                "reason": one_line(reason),
            },
        )

    def claim(self, plugin: str, most: int, until: datetime, parked: bool = False) -> list[Claimed]:
        """Lease up to `most` orphans of a plugin, by one statement.

        Args:
            until: take what was due by then; a run that passes its own beginning
                tries no orphan twice.
            parked: take what was parked by then instead.
        """
        now = self.now()
        leased_until = clock.stamp(now + self.lease)
        statement = CLAIM.format(
            which=PARKED if parked else DUE,
            order="parked_at" if parked else "next_attempt_at",
            lock="FOR UPDATE SKIP LOCKED" if isinstance(self.database, Postgres) else "",
        )
        with self.database.writing():
            rows = self.database.sql(
                statement, plugin, clock.stamp(until), clock.stamp(now), most, leased_until
            ).fetchall()
        return [_claimed(row, leased_until) for row in rows]

    def count(self, plugin: str, until: datetime, parked: bool = False) -> int:
        """Return how many there are to claim, those included that others work on."""
        which = PARKED if parked else DUE
        with self.database.reading():
            counted: tuple[int] = self.database.sql(
                f"SELECT count(*) FROM orphans WHERE plugin = ? AND {which}",
                plugin,
                clock.stamp(until),
            ).fetchone()
        return counted[0]

    def renew(self, orphan: Claimed) -> Claimed | None:
        """Lease a claimed orphan anew; `None` where another has taken it over meanwhile."""
        leased_until = clock.stamp(self.now() + self.lease)
        with self.database.autocommitting():
            renewed = self.database.sql(
                "UPDATE orphans SET leased_until = ? WHERE id = ? AND leased_until = ?",
                leased_until,
                orphan.id,
                orphan.leased_until,
            )
        return (
            replace(orphan, leased_until=leased_until, claimed_at=time.monotonic())
            if renewed.rowcount
            else None
        )

    def release(self, orphans: Iterable[Claimed]) -> None:
        """Give back what was claimed and not tried."""
        for orphan in orphans:
            with self.database.autocommitting():
                self.database.sql(
                    "UPDATE orphans SET leased_until = NULL WHERE id = ? AND leased_until = ?",
                    orphan.id,
                    orphan.leased_until,
                )

    def forget(self, orphan: Claimed) -> None:
        """Delete an orphan of which nothing is left, unless a DELETE has failed again meanwhile."""
        with self.database.autocommitting():
            self.database.sql(
                "DELETE FROM orphans WHERE id = ? AND attempts = ?", orphan.id, orphan.attempts
            )

    def park(self, orphan: Claimed, reason: str) -> None:
        """Park an orphan that cannot be tried."""
        with self.database.autocommitting():
            self.database.sql(
                "UPDATE orphans SET reason = ?, parked_at = ?, leased_until = NULL WHERE id = ?",
                reason,
                clock.stamp(self.now()),
                orphan.id,
            )

    def postpone(self, orphan: Claimed, failure: Outcome) -> bool:
        """Put an orphan off until its next attempt, or park it; return whether it is parked."""
        now, attempts = self.now(), orphan.attempts + 1
        parked = failure.permanent or orphan.parked or attempts >= MOST_ATTEMPTS
        with self.database.autocommitting():
            self.database.sql(
                "UPDATE orphans SET attempts = attempts + 1, reason = ?, next_attempt_at = ?,"
                " parked_at = ?, leased_until = NULL WHERE id = ? AND leased_until = ?",
                failure.failure,
                clock.stamp(now + max(self._backoff(attempts), _asked(failure))),
                clock.stamp(now) if parked else None,
                orphan.id,
                orphan.leased_until,
            )
        return parked

    def _backoff(self, attempts: int) -> timedelta:
        most = min(LONGEST_BACKOFF, MINUTE * 2 ** min(attempts, 20))
        return timedelta(seconds=self.jitter(MINUTE.total_seconds(), most.total_seconds()))

    def find(self, start: str) -> list[str]:
        """Return up to two ids that begin with `start`; nothing begins with nothing."""
        length = max(len(start), 1)
        with self.database.reading():
            rows = self.database.sql(
                "SELECT CAST(id AS TEXT) FROM orphans"
                " WHERE substr(CAST(id AS TEXT), 1, ?) = ? LIMIT 2",
                length,
                start.lower(),
            ).fetchall()
        return [found for (found,) in rows]

    def drop(self, orphan_id: str, reason: str) -> bool:
        """Delete an orphan on a person's word; return whether it was there."""
        with self.database.writing():
            rows = self.database.sql(
                "DELETE FROM orphans WHERE id = ? RETURNING plugin, account_id", orphan_id
            ).fetchall()
        for plugin, account_id in rows:
            fields = {"orphan": orphan_id, "plugin": plugin, "account": str(account_id)}
            log.warning("orphan.dropped", extra=fields | {"reason": one_line(reason)})
        return bool(rows)

    def pages(self) -> Iterator[list[Orphan]]:
        """Return all orphans, the oldest first, a page at a time."""
        after: tuple[Any, Any] | None = None
        while True:
            query = Orphan.select().order_by(Orphan.created_at, Orphan.id).limit(PAGE)
            if after:
                # The first condition is what lets the index begin where the last page ended.
                query = query.where(
                    Orphan.created_at >= after[0],
                    (Orphan.created_at > after[0]) | (Orphan.id > after[1]),
                )
            with self.database.reading():
                page = list(query)
            if not page or (page[-1].created_at, page[-1].id) == after:
                return  # the second: a time written by hand that sorts after itself
            yield page
            after = (page[-1].created_at, page[-1].id)

    def counts(self) -> dict[str, int]:
        """Return how many orphans there are: `all`, `parked`, and `old` (parked, 90 days old)."""
        before = clock.stamp(self.now() - OLD)
        with self.database.reading():
            row = self.database.sql(
                "SELECT count(*), count(parked_at), count(CASE WHEN parked_at IS NOT NULL"
                " AND (parked_at < ? OR created_at < ?) THEN 1 END) FROM orphans",
                before,
                before,
            ).fetchone()
        return dict(zip(("all", "parked", "old"), row, strict=True))

    def snapshots(self, plugin: str) -> Iterator[str]:
        """Return the snapshots of all orphans of a plugin as JSON, a page at a time."""
        after = None
        while True:
            start = "" if after is None else "AND id > ? "
            statement = (
                "SELECT id, CAST(account AS TEXT) FROM orphans WHERE plugin = ?"
                f" {start}ORDER BY id LIMIT {PAGE}"
            )
            with self.database.reading():
                rows = self.database.sql(
                    statement, plugin, *([] if after is None else [after])
                ).fetchall()
            for _, text in rows:
                yield text
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def standing(self) -> list[Standing]:
        """Return how many orphans each plugin has, by what they wait for."""
        now = clock.stamp(self.now())
        with self.database.reading():
            rows = self.database.sql(STANDING, now, now).fetchall()
        return [
            Standing(plugin, due, waiting, parked, clock.moment(oldest) or self.now())
            for plugin, due, waiting, parked, oldest in rows
        ]

    def plugins(self) -> set[str]:
        """Return the names of the plugins that have orphans."""
        with self.database.reading():
            return {name for (name,) in self.database.sql("SELECT DISTINCT plugin FROM orphans")}


def orphan_id(plugin: str, account: Account, fields: tuple[str, ...]) -> str:
    """Return the one id for a plugin, an account and what it names there (RFC 9562 §5.5).

    Args:
        fields: the plugin's `RESOURCE_IDS`.
    """
    named = resources.identity(account, fields)
    return str(uuid.uuid5(NAMESPACE, json.dumps([plugin, account.id, named])))


def _asked(failure: Outcome) -> timedelta:
    longest = LONGEST_RETRY_AFTER.total_seconds()
    return timedelta(seconds=min(failure.retry_after, longest))


def _claimed(row: Any, leased_until: str) -> Claimed:
    id, plugin, account_id, user_id, account, attempts, parked_at, request_id = row
    return Claimed(
        id=str(id),
        plugin=plugin,
        account_id=str(account_id),
        user_id=str(user_id),
        account=_snapshot(account),
        origin=origins.of(account),
        attempts=attempts,
        parked=parked_at is not None,
        request_id=request_id,
        leased_until=leased_until,
        claimed_at=time.monotonic(),
    )


def _snapshot(text: str) -> Account | None:
    try:
        return Account.from_json(text)
    except (ValueError, TypeError):
        return None
