"""The decision: what a DELETE does to an account, whatever the providers do."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from peewee import PeeweeException

from puffle_accounts import clock, context, snapshots, teardown
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.errors import DatabaseUnavailable, DeleteFailed
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
        ending = _Ending(self, account, lease)
        try:
            for _ in range(ROUNDS):
                left = ending.tear_down()
                if ending.settle(left):
                    return ending.done()
        except (DatabaseUnavailable, PeeweeException) as error:
            raise ending.failed("delete failed", error) from error
        raise ending.failed("its row kept changing")


class _Ending:
    """One DELETE under way: the account as it is now, and whether something is left of it."""

    def __init__(self, service: Service, account: Account, lease: Lease | None) -> None:
        self._service = service
        self._lease = lease
        self._started = time.monotonic()
        self._account = account
        self._partial = False

    def tear_down(self) -> list[Outcome]:
        """Call every plugin that the account concerns; return what is left, one per plugin."""
        if self._account.is_disconnected:
            return []
        concerned = self._service.plugins.implementations(self._account.type)
        deadline = self._started + self._service.timeout
        outcomes = teardown.call_all(concerned, self._account, deadline)
        return list({outcome.plugin: outcome for outcome in outcomes if outcome.failure}.values())

    def settle(self, left: list[Outcome]) -> bool:
        """Change the row if it is still the same; return whether all is done.

        Where the connection broke, try once more, a moment later: the answer alone may have
        been lost, or the database be back already.
        """
        began = time.monotonic()
        try:
            return self._change_row(left)
        except DatabaseUnavailable:
            if time.monotonic() - began > MOMENT:
                raise
            time.sleep(MOMENT)
            return self._change_row(left)

    def _change_row(self, left: list[Outcome]) -> bool:
        database, account = self._service.database, self._account
        soft = _is_soft(account)
        change = snapshots.disconnect_unchanged if soft else snapshots.delete_unchanged
        with database.writing() if left or self._lease else database.autocommitting():
            changed = change(database, account)
            found = None if changed else snapshots.read(database, account.id, account.user_id)
            ended = found is None or (soft and found.is_disconnected)  # or somebody else was first
            # Unless it still names what is left, the row is no record of it.
            if found is None or ended or _named(found) != _named(account):
                self._service.ledger.record(left, context.request_id.get())
                self._partial = self._partial or bool(left)
            if ended and self._lease:
                self._service.idempotency_keys.finish(self._lease, self._status)
        if found is not None and not ended:
            self._account = found
        return ended

    def done(self) -> str:
        """Log that it is done, and return the Teardown-Status."""
        event = "account.disconnected" if _is_soft(self._account) else "account.deleted"
        log.info(event, extra=self._fields(self._status))
        return self._status

    def failed(self, outcome: str, error: Exception | None = None) -> DeleteFailed:
        """Log that the row is still there, and return what to raise."""
        log.error("account.kept", extra=self._fields(outcome), exc_info=error)
        return DeleteFailed(outcome)

    @property
    def _status(self) -> str:
        return "partial" if self._partial else "complete"

    def _fields(self, outcome: str) -> dict[str, object]:
        return {
            "account": self._account.id,
            "user": self._account.user_id,
            "outcome": outcome,
            "ms": clock.ms_since(self._started),
        }


def _is_soft(account: Account) -> bool:
    return account.type == "linkedin" and not account.is_disconnected


def _named(account: Account) -> object:
    """Return what names something upstream: the four ids, and those of third parties."""
    return account.provider_ids, account.metadata
