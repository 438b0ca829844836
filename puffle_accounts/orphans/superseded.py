"""Is an old failure superseded? A reconnected account must not be torn down by it."""

from __future__ import annotations

from puffle_accounts.account import Account
from puffle_accounts.database import Database

MAILBOX = ("email_address", "agentmail_inbox_id", "instantly_account_id")
LIVE = "SELECT 1 FROM accounts WHERE NOT (type = 'linkedin' AND status IS ?) AND ({same}) LIMIT 1"


def is_superseded(database: Database, account: Account) -> bool:
    """Whether a live account uses what an orphan of this one would tear down."""
    same, ids = _same_resource(account)
    if not same:
        return False
    with database.reading():
        found = database.sql(LIVE.replace("{same}", same), "disconnected", *ids)
        return found.fetchone() is not None


def _same_resource(account: Account) -> tuple[str, list[str]]:
    """Return the condition, and its values, under which a row uses the same resource.

    The ids of a mailbox are e-mail addresses, and Instantly knows one account by
    either of two: so each is compared with each, without regard to case.
    """
    session, *mailbox = account.provider_ids
    addresses = [value for value in mailbox if value and account.type != "linkedin"]
    sessions = [session] if session and account.type != "email" else []
    marks = ", ".join(["lower(?)"] * len(addresses))
    conditions = [f"lower({name}) IN ({marks})" for name in MAILBOX if addresses]
    conditions += ["provider_account_id = ?" for _ in sessions]
    return " OR ".join(conditions), addresses * len(MAILBOX) + sessions
