"""The decision: what a DELETE does to an account, whatever the providers do."""

from __future__ import annotations

import logging
import time

from peewee import PeeweeException

from puffle_accounts import clock, context, leases, live, resources, snapshots, teardown
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.errors import DatabaseUnavailable, DeleteFailed
from puffle_accounts.hooks.registry import Implementation, Plugins
from puffle_accounts.idempotency import IdempotencyKeys, Lease
from puffle_accounts.live import Found
from puffle_accounts.orphans.ledger import Ledger
from puffle_accounts.orphans.record import record
from puffle_accounts.teardown import Outcome
from puffle_accounts.telemetry import telemetry
from puffle_accounts.text import one_line

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
        lease = leases.length(timeout)
        self.database = database
        self.plugins = plugins
        self.timeout = timeout
        self.ledger = Ledger(database, lease)
        self.idempotency_keys = IdempotencyKeys(database, lease)

    def end(self, found: Found, lease: Lease | None = None) -> str:
        """Take an account apart: first what its providers hold, then its row.

        LinkedIn is soft-deleted, and hard-deleted when it is disconnected already;
        anything else is hard-deleted. What a provider left becomes an orphan in the
        transaction that changes the row, and so does what another account still uses,
        of which nothing is torn down. A row that has changed meanwhile is looked at
        afresh, so that a reconnect in between is not deleted unrevoked.

        Returns:
            `complete`, or `partial` when something was left behind upstream.

        Raises:
            DeleteFailed: the row could not be changed.
            DatabaseUnavailable: it did not answer before a provider was called.
            KeyInUse: the lease was lost to another request; nothing is stored.
        """
        account = found.account
        asked = {
            "puffle.account.id": account.id,
            "puffle.account.type": account.kind,
            "puffle.request.id": context.request_id.get(),
        }
        with telemetry.begin("teardown", asked) as span:
            status = self._end(_Ending(self, found, lease))
            span.set({"puffle.teardown.status": status})
        return status

    def _end(self, ending: _Ending) -> str:
        try:
            for _ in range(ROUNDS):
                left = ending.tear_down()
                if ending.settle(left):
                    return ending.done()
        except (DatabaseUnavailable, PeeweeException) as error:
            if not ending.begun:
                raise
            raise ending.failed("delete failed", error) from error
        raise ending.failed("its row kept changing")


class _Ending:
    """One DELETE under way: the account as it is now, and whether something is left of it."""

    def __init__(self, service: Service, found: Found, lease: Lease | None) -> None:
        self.begun = False
        self._service = service
        self._found = found
        self._lease = lease
        self._started = time.monotonic()
        self._partial = False

    def tear_down(self) -> list[Outcome]:
        """Call every plugin that the account concerns; return what is left, one per plugin."""
        if self._found.unreadable:
            raise self.failed(f"its {self._found.unreadable} cannot be read exactly: correct it")
        account = self._found.account
        concerned = [] if account.is_disconnected else self._service.plugins.concerned(account)
        in_use = self._in_use_by_others(concerned) if self._found.may_share else set()
        self.begun = True
        deadline = self._started + self._service.timeout
        called = [each for each in concerned if each.plugin not in in_use]
        outcomes = teardown.call_all(called, account, deadline)
        outcomes += [teardown.spared(e, account) for e in concerned if e.plugin in in_use]
        return list({outcome.plugin: outcome for outcome in outcomes if outcome.failure}.values())

    def _in_use_by_others(self, concerned: list[Implementation]) -> set[str]:
        """Return the plugins of which another live account has the same resource."""
        service, account = self._service, self._found.account
        names = {each.plugin for each in concerned if each.resource_ids}
        with service.database.reading():
            return {
                plugin.name
                for plugin in service.plugins.active
                if plugin.name in names
                and any(u.id != account.id for u in live.users(service.database, plugin, account))
            }

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
        database, account = self._service.database, self._found.account
        several = left or self._lease or self._service.plugins.metadata_fields
        with database.writing() if several else database.autocommitting():
            found = self._change_or_read()
            ended = found is None or (_is_soft(account) and found.account.is_disconnected)
            if found is None or ended:
                self._record(left)
            elif self._is_same(found.account):
                raise self.failed("the database did not change its row")
            else:  # the row is no record of what it does not name any more
                self._record([each for each in left if not _still_named(each, found.account)])
            if ended and self._lease:
                self._service.idempotency_keys.finish(self._lease, self._status)
        if found is not None and not ended:
            self._found = found
        return ended

    def _change_or_read(self) -> Found | None:
        """Change the row if it is still the same, else return it; `None` if it is as wanted."""
        database, account = self._service.database, self._found.account
        if self._service.plugins.metadata_fields:
            found = self._read(to_change=True)
            if found is None or not self._is_same(found.account):
                return found
        soft = _is_soft(account)
        change = snapshots.disconnect_unchanged if soft else snapshots.delete_unchanged
        return None if change(database, account) else self._read()

    def _read(self, to_change: bool = False) -> Found | None:
        service, account = self._service, self._found.account
        declared = service.plugins.declarations
        return live.read(service.database, declared, account.id, account.user_id, to_change)

    def _is_same(self, now: Account) -> bool:
        """Whether an account is still what was torn down: status, ids, and keys that are ids."""
        before, fields = self._found.account, self._service.plugins.metadata_fields
        return (before.status, before.provider_ids) == (now.status, now.provider_ids) and (
            resources.named(before, fields) == resources.named(now, fields)
        )

    def _record(self, left: list[Outcome]) -> None:
        record(self._service.database, left, context.request_id.get())
        self._partial = self._partial or any(not outcome.spared for outcome in left)

    def done(self) -> str:
        """Log that it is done, and return the Teardown-Status."""
        soft = _is_soft(self._found.account)
        event = "account.disconnected" if soft else "account.deleted"
        log.info(event, extra=self._fields(self._status))
        return self._status

    def failed(self, outcome: str, error: Exception | None = None) -> DeleteFailed:
        """Log that the row is still there, and return what to raise."""
        why = {} if error is None else {"reason": one_line(error)}
        log.error("account.kept", extra=self._fields(outcome) | why, exc_info=error)
        return DeleteFailed(outcome)

    @property
    def _status(self) -> str:
        return "partial" if self._partial else "complete"

    def _fields(self, outcome: str) -> dict[str, object]:
        return {
            "account": self._found.account.id,
            "user": self._found.account.user_id,
            "outcome": outcome,
            "ms": clock.ms_since(self._started),
        }


def _is_soft(account: Account) -> bool:
    return account.kind == "linkedin" and not account.is_disconnected


def _still_named(left: Outcome, now: Account) -> bool:
    """Whether an account still names what was left of it."""
    before, fields = left.account, left.resource_ids
    return resources.identity(before, fields) == resources.identity(now, fields)
