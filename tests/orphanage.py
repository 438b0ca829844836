"""Orphans to begin a test with, as failed DELETEs have left them."""

from __future__ import annotations

import uuid
from datetime import timedelta

from support import COLUMN_OF, Stack

from puffle_accounts import Account, clock
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.ledger import Ledger
from puffle_accounts.orphans.record import record as write
from puffle_accounts.teardown import Outcome
from puffle_accounts.testing import account

MAILBOX = ("email_address", "agentmail_inbox_id", "instantly_account_id")


def failed(plugin: str, account: Account, **details) -> Outcome:
    """Return the outcome of a call that failed."""
    return Outcome(plugin, account, 0, **{"failure": "left by a test", **details})


def ledger_of(stack: Stack, **jitter) -> Ledger:
    """Return the ledger with a lease of twelve seconds; `jitter` may be given."""
    return Ledger(stack.database, timedelta(seconds=12), **jitter)


def record(stack: Stack, *failures: Outcome, request_id: str = "left-by-a-test") -> None:
    with stack.database.writing():
        write(stack.database, failures, request_id)


def let_pass(stack: Stack, time: timedelta) -> None:
    """Make all orphans as much older: nobody can set the clock of a database forward."""
    for orphan in stack.orphans():
        older = [orphan[name] and clock.stamp(orphan[name] - time) for name in standing.TIMES]
        columns = ", ".join(f"{name} = ?" for name in standing.TIMES)
        stack.sql(f"UPDATE orphans SET {columns} WHERE id = ?", *older, orphan["id"])


def leave(stack: Stack, count: int = 1, plugin: str = "unipile", **details) -> list[Account]:
    """Leave orphans of accounts whose rows are gone, each with its resource at the sandbox."""
    accounts = [_account(plugin) for _ in range(count)]
    for each in accounts:
        stack.sandbox.add(plugin, getattr(each, COLUMN_OF[plugin]))
    record(stack, *(failed(plugin, each, **details) for each in accounts))
    return accounts


def _account(plugin: str) -> Account:
    if plugin == "unipile":
        return account(type="linkedin", provider_account_id=f"acc-{uuid.uuid4().hex}")
    return account(**dict.fromkeys(MAILBOX, f"{uuid.uuid4().hex}@outreach.example"))


def called_for(stack: Stack) -> list[str]:
    """Return the path of every DELETE that the sandbox has seen."""
    return [call.path for call in stack.sandbox.calls if call.method == "DELETE"]
