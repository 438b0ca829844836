"""The decision: what a DELETE does to an account, whatever the providers do."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from puffle_accounts import clock, context, snapshots, teardown
from puffle_accounts.account import Account
from puffle_accounts.database import BROKEN, UNAVAILABLE, Database
from puffle_accounts.errors import DeleteFailed
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.idempotency import LEASE_MARGIN, IdempotencyKeys, Lease
from puffle_accounts.orphans.ledger import Ledger
from puffle_accounts.teardown import Outcome

ROUNDS = 3
MOMENT = 1.0  # seconds: what fails sooner is a broken connection, and one may be had by then

log = logging.getLogger(__name__)


class Service:
    """Ends accounts.

    Args:
        database: with the tables.
        plugins: who tears down upstream.
        timeout: seconds for all hooks of one request together.
    """

    def __init__(self, database: Database, plugins: Plugins, timeout: float) -> None:
        lease = timedelta(seconds=timeout + LEASE_MARGIN)
        self.database = database
        self.plugins = plugins
        self.timeout = timeout
        self.ledger = Ledger(database, lease)
        self.idempotency_keys = IdempotencyKeys(database, lease)

    def end(self, account: Account, lease: Lease | None = None) -> str:
        """Take an account apart: first what its providers hold, then its row.

        LinkedIn is soft-deleted, and hard-deleted when it is disconnected already;
        anything else is hard-deleted. What a provider left becomes an orphan in the
        transaction that changes the row. A row that has changed meanwhile is looked
        at afresh, so that a reconnect in between is not deleted unrevoked.

        Returns:
            `complete`, or `partial` when something was left behind upstream.

        Raises:
            DeleteFailed: the row could not be changed.
            KeyInUse: the lease was lost to another request; nothing is stored.
        """
        started, partial = time.monotonic(), False
        for _ in range(ROUNDS):
            left = self._tear_down(account, started + self.timeout)
            try:
                current, partial = self._settle_surely(account, left, partial, lease)
            except UNAVAILABLE as error:
                log.exception("account.kept", extra=_fields(account, started, "delete failed"))
                raise DeleteFailed from error
            if current is None:
                event = "account.disconnected" if _is_soft(account) else "account.deleted"
                log.info(event, extra=_fields(account, started, _status(partial)))
                return _status(partial)
            account = current
        log.error("account.kept", extra=_fields(account, started, "its row kept changing"))
        raise DeleteFailed

    def _tear_down(self, account: Account, deadline: float) -> list[Outcome]:
        """Call every plugin that the account concerns; return what is left, one per plugin."""
        if account.is_disconnected:
            return []
        outcomes = teardown.run(self.plugins.hooks(account.type), account, deadline)
        return list({o.hook.plugin: o for o in outcomes if o.failure}.values())

    def _settle_surely(
        self, account: Account, left: list[Outcome], partial: bool, lease: Lease | None
    ) -> tuple[Account | None, bool]:
        """Settle, and once more, a moment later, if the connection broke.

        The answer alone may have been lost, or the database be back already.
        """
        began = time.monotonic()
        try:
            return self._settle(account, left, partial, lease)
        except BROKEN:
            if time.monotonic() - began > MOMENT:
                raise
            time.sleep(MOMENT)
            return self._settle(account, left, partial, lease)

    def _settle(
        self, account: Account, left: list[Outcome], partial: bool, lease: Lease | None
    ) -> tuple[Account | None, bool]:
        """Change the row, or return what it has become meanwhile; and whether something is left."""
        soft = _is_soft(account)
        change = snapshots.disconnect_unchanged if soft else snapshots.delete_unchanged
        with self.database.writing() if left or lease else self.database.autocommitting():
            current = None if change(self.database, account) else self._read(account)
            if current and soft and current.is_disconnected:
                current = None  # somebody else was first
            # Unless it still names what is left, the row is no record of it.
            if current is None or _named(current) != _named(account):
                self.ledger.record(left, context.request_id.get())
                partial = partial or bool(left)
            if current is None and lease:
                self.idempotency_keys.finish(lease, _status(partial))
        return current, partial

    def _read(self, account: Account) -> Account | None:
        return snapshots.read(self.database, account.id, account.user_id)


def _is_soft(account: Account) -> bool:
    return account.type == "linkedin" and not account.is_disconnected


def _named(account: Account) -> object:
    """Return what names something upstream: the four ids, and those of third parties."""
    return account.provider_ids, account.metadata


def _status(partial: bool) -> str:
    return "partial" if partial else "complete"


def _fields(account: Account, started: float, outcome: str) -> dict[str, object]:
    return {
        "account": account.id,
        "user": account.user_id,
        "outcome": outcome,
        "ms": clock.ms_since(started),
    }
