"""An orphan is written: what a DELETE has left, or what a person has found."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable
from datetime import timedelta

from puffle_accounts import resources
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import origins
from puffle_accounts.orphans.due import asked
from puffle_accounts.teardown import Outcome
from puffle_accounts.text import one_line

NAMESPACE = uuid.UUID("6f1d3c1e-3f0b-4d53-9a53-3b1f5d0c6d0a")
NOW = timedelta()

# A count that somebody wrote by hand must not overflow: that would be a DELETE's 500.
ATTEMPTS = "orphans.attempts - orphans.attempts / 1000000 * 1000000"
RECORD = f"""
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,
                     created_at, next_attempt_at, parked_at, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, clock(?), clock(?), clock(?), ?)
ON CONFLICT (id) DO UPDATE SET
    account = excluded.account,
    reason = excluded.reason,
    attempts = {ATTEMPTS} + excluded.attempts,
    next_attempt_at = excluded.next_attempt_at,
    request_id = excluded.request_id,
    parked_at = COALESCE(orphans.parked_at, excluded.parked_at)"""

ADOPT = """
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts,
                     created_at, next_attempt_at)
VALUES (?, ?, ?, ?, ?, ?, 0, clock(?), clock(?))
ON CONFLICT (id) DO NOTHING"""

log = logging.getLogger(__name__)


def record(database: Database, failures: Iterable[Outcome], request_id: str | None) -> None:
    """Remember failed calls of a DELETE, within its transaction.

    A first retry may come at once, or when the provider's Retry-After is over.
    """
    in_order = sorted(failures, key=lambda failure: failure.plugin)
    for failure in in_order:  # the same for all requests: those of one account cannot deadlock
        account, plugin = failure.account, failure.plugin
        database.sql(
            RECORD,
            orphan_id(plugin, account, failure.resource_ids),
            plugin,
            account.id,
            account.user_id,
            origins.keep(account.to_json()),
            failure.failure,
            int(not failure.spared),
            NOW,
            asked(failure),
            NOW if failure.permanent else None,
            request_id,
        )


def adopt(database: Database, plugin: Plugin, account: Account, reason: str) -> None:
    """Make an orphan of what a person has named, due at once, within a transaction."""
    fields, reason = plugin.resource_ids, one_line(reason)
    orphan = orphan_id(plugin.name, account, fields)
    who = (plugin.name, account.id, account.user_id)
    database.sql(ADOPT, orphan, *who, account.to_json(), reason, NOW, NOW)
    log.warning(
        "orphan.adopted",
        extra={
            "orphan": orphan,
            "plugin": plugin.name,
            "outcome": ", ".join(resources.named(account, fields).values()),
            "reason": reason,
        },
    )


def orphan_id(plugin: str, account: Account, fields: tuple[str, ...]) -> str:
    """Return the one id for a plugin, an account and what it names there (RFC 9562 §5.5).

    Args:
        fields: the plugin's `RESOURCE_IDS`.
    """
    named = resources.identity(account, fields)
    return str(uuid.uuid5(NAMESPACE, json.dumps([plugin, account.id, named])))
