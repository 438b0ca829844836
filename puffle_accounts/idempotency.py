"""Make a repeated DELETE harmless (IETF draft "The Idempotency-Key HTTP Header Field")."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from puffle_accounts import leases
from puffle_accounts.database import Database
from puffle_accounts.errors import DatabaseUnavailable, InvalidKey, KeyInUse, KeyReused
from puffle_accounts.owed import Owed

REMEMBERED = timedelta(hours=24)  # an answer that is further ahead, no right clock has dated
LONGEST_KEY = 255
SWEEP_EVERY = 3600.0  # seconds

CLAIM = f"""
INSERT INTO idempotency_keys (user_id, key, account_id, token, leased_until)
VALUES (?, ?, ?, ?, clock(?))
ON CONFLICT (user_id, key) DO UPDATE SET
    account_id = excluded.account_id, token = excluded.token,
    leased_until = excluded.leased_until, finished_at = NULL, teardown_status = NULL
WHERE (idempotency_keys.finished_at IS NULL AND {leases.over("idempotency_keys.leased_until")})
   OR idempotency_keys.finished_at NOT BETWEEN clock(?) AND clock(?)"""
HOLDER = (
    "SELECT account_id, token, finished_at, teardown_status FROM idempotency_keys"
    " WHERE user_id = ? AND key = ?"
)
FINISH = "UPDATE idempotency_keys SET finished_at = clock(?), teardown_status = ? WHERE token = ?"
FREE = "DELETE FROM idempotency_keys WHERE token = ? AND finished_at IS NULL"
SWEPT = 1000  # keys at once: no claim has to wait for a statement about very many of them
SWEEP = """
DELETE FROM idempotency_keys WHERE token IN (
    SELECT token FROM idempotency_keys WHERE leased_until {} clock(?)
    ORDER BY leased_until LIMIT ?)"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replay:
    """The first request with this key has answered 200 already."""

    teardown_status: str


@dataclass(frozen=True, slots=True)
class Lease:
    """This request is the one that works under the key."""

    token: str


def parse(header: str) -> str:
    """Return the key of an Idempotency-Key header; `"abc"` and `abc` are the same key.

    Raises:
        InvalidKey: it is empty, too long or not printable ASCII.
    """
    quoted = len(header) >= 2 and header[0] == header[-1] == '"'
    key = header[1:-1] if quoted else header
    if not 1 <= len(key) <= LONGEST_KEY or not all(" " <= c <= "~" for c in key):
        raise InvalidKey
    return key


@dataclass(frozen=True, slots=True)
class IdempotencyKeys:
    """The table `idempotency_keys` of one database.

    Args:
        lease: how long a request may work under a key before another may take over.
    """

    database: Database
    lease: timedelta
    _owed: Owed = field(default_factory=Owed, repr=False)

    def claim(self, user_id: str, key: str, account_id: str) -> Lease | Replay:
        """Take the key for this request, or return what its first request answered.

        Raises:
            KeyInUse: another request works under it.
            KeyReused: it belongs to another account.
        """
        token = secrets.token_hex(16)
        self._owed.pay(self._free)
        try:
            with self.database.writing():
                self.database.sql(
                    CLAIM,
                    user_id,
                    key,
                    account_id,
                    token,
                    self.lease,
                    *leases.HELD,
                    *(-REMEMBERED, REMEMBERED),
                )
                holder = self.database.sql(HOLDER, user_id, key).fetchone()
        except DatabaseUnavailable:  # the answer alone may have been lost
            self.free(Lease(token))
            raise
        if holder is None:  # freed between the two statements
            raise KeyInUse
        account, owner, finished_at, teardown_status = holder
        if owner == token:
            return Lease(token)
        if str(account) != account_id:
            raise KeyReused
        if finished_at is None:
            raise KeyInUse
        return Replay(teardown_status)

    def finish(self, lease: Lease, teardown_status: str) -> None:
        """Remember the answer, within the transaction that changes the row.

        Raises:
            KeyInUse: another request has taken the key over; the transaction must not be.
        """
        done = self.database.sql(FINISH, timedelta(), teardown_status, lease.token)
        if not done.rowcount:
            raise KeyInUse

    def free(self, lease: Lease) -> None:
        """Give the key back; where the database is away, as soon as it answers again."""
        try:
            self._free(lease.token)
        except DatabaseUnavailable as error:
            log.warning("idempotency.not_freed", extra={"reason": str(error)})
            self._owed.add(lease.token, time.monotonic() + self.lease.total_seconds())
            self._owed.pay_in_background(self._free)

    def _free(self, token: str) -> None:
        with self.database.autocommitting():
            self.database.sql(FREE, token)

    def sweep(self) -> None:
        """Delete the keys that are no longer remembered."""
        self._sweep(SWEEP.format("<="), -REMEMBERED - self.lease)
        self._sweep(SWEEP.format(">"), REMEMBERED + leases.LONGEST)

    def _sweep(self, statement: str, distance: timedelta) -> None:
        swept = SWEPT
        while swept == SWEPT:
            with self.database.autocommitting():
                swept = self.database.sql(statement, distance, SWEPT).rowcount


class Sweeper:
    """Sweeps once an hour, in a thread that no request waits for."""

    def __init__(self, keys: IdempotencyKeys) -> None:
        self._keys = keys
        self._due = 0.0

    def __call__(self) -> None:
        """Sweep if an hour has passed."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + SWEEP_EVERY
        thread = threading.Thread(target=self._sweep, name="idempotency-sweep", daemon=True)
        with suppress(RuntimeError):  # the machine has no thread left
            thread.start()

    def _sweep(self) -> None:
        try:
            self._keys.sweep()
        except DatabaseUnavailable as error:
            log.warning("idempotency.not_swept", extra={"reason": str(error)})
