"""The accounts that are deleted: numbered, so that every process knows their ids without a list."""

from datetime import datetime, timezone

USER_ID = "5a6e8c1a-3f0b-4c57-9d0e-0b6f1f2a7c11"
# Twelve decimal digits are a valid last group of a UUID; pgbench can write them, too.
FIRST = 100_000_000_000
ID_PREFIX = "00000000-0000-4000-8000-"
COLUMNS = (
    "id",
    "user_id",
    "type",
    "status",
    "display_name",
    "created_at",
    "updated_at",
    "provider_account_id",
    "email_address",
    "agentmail_inbox_id",
    "instantly_account_id",
)


def account_id(number):
    return f"{ID_PREFIX}{FIRST + number}"


def linkedin(number, status="connected"):
    unipile_id = f"unipile{number}"
    return row(number, "linkedin", status, unipile_id, None, None, None)


def disconnected(number):
    return linkedin(number, "disconnected")


def email(number):
    address = f"a{number}@bench.example"
    return row(number, "email", "connected", None, address, address, address)


def row(number, kind, status, *provider_ids):
    now = datetime.now(timezone.utc).isoformat()
    return (account_id(number), USER_ID, kind, status, "Ada", now, now, *provider_ids)


def rows(make, first, count):
    return (make(number) for number in range(first, first + count))
