"""Is an old failure superseded? A reconnected account must not be torn down by it."""

from __future__ import annotations

from enum import Enum

from puffle_accounts import live
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.hooks.registry import Plugin

UNDECIDED = (
    "a live account has the same ids but other metadata, and the plugin does not say which of"
    " them name what it holds: let it declare RESOURCE_IDS, or drop the orphan"
)


class Verdict(Enum):
    """Whether a live account uses what an orphan would tear down."""

    FREE = "nobody uses it"
    SUPERSEDED = "a live account uses it"
    UNDECIDED = "nobody can tell"


def look(database: Database, plugin: Plugin, account: Account) -> Verdict:
    """Look whether a live account uses what a plugin may have left of `account`."""
    verdict = Verdict.FREE
    with database.reading():
        for user in live.users(database, plugin, account):
            if plugin.resource_ids or user.metadata == account.metadata:
                return Verdict.SUPERSEDED
            verdict = Verdict.UNDECIDED
    return verdict
