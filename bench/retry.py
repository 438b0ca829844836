"""How fast `puffle-accounts orphans retry` works off 10,000 orphans: `python -m bench.retry`."""

import os
import subprocess
import sys
import time
import uuid
from datetime import datetime, timezone

from bench import accounts, databases, processes
from bench.contestants import environment
from puffle_accounts import Account

ORPHANS = 10_000
DELAYS = (0, 50)  # milliseconds per provider call
COLUMNS = (
    "id",
    "plugin",
    "account_id",
    "user_id",
    "account",
    "reason",
    "attempts",
    "created_at",
    "next_attempt_at",
)


def main():
    with databases.postgres() as database, processes.provider() as provider:
        for delay in DELAYS:
            database.fill(map(orphan, range(ORPHANS)), "orphans", COLUMNS)
            seconds, used = retry(database, provider, delay)
            print(
                f"{delay} ms per provider call: {ORPHANS / seconds:.0f} orphans/s,"
                f" {(used.ru_utime + used.ru_stime) / ORPHANS * 1000:.2f} CPU s per 1,000,"
                f" peak RSS {used.ru_maxrss * kilobyte() / 1e6:.0f} MB,"
                f" left: {database.count('orphans')}"
            )


def retry(database, provider, delay):
    """Seconds, and what the process used."""
    told = environment(provider.port, delay, delay) | {"DATABASE_URL": database.url}
    started = time.perf_counter()
    words = [databases.COMMAND, "orphans", "retry"]
    process = subprocess.Popen(words, env=told, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, used


def orphan(number):
    inbox = f"a{number}@bench.example"
    account = Account(
        id=accounts.account_id(number),
        user_id=accounts.USER_ID,
        type="email",
        agentmail_inbox_id=inbox,
    )
    now = datetime.now(timezone.utc).isoformat()
    words = (account.to_json(), "HTTP 503", 1, now, now)
    return str(uuid.uuid4()), "agentmail", account.id, account.user_id, *words


def kilobyte():
    """The unit of ru_maxrss."""
    return 1 if sys.platform == "darwin" else 1024


if __name__ == "__main__":
    main()
