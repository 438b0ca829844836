"""One limit of a machine, reached by one live service; and what is wrong with what comes of it."""

import json
import re
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psutil
import requests
from support import wait_until

from soak.live import Trial

ACCOUNTS = 16  # deleted while it lasts
AT_ONCE = 8
PATIENCE = 8.0  # seconds for an answer
WELL = 60.0  # seconds within which the service must be well again
PASSES = 5  # of a retrier, until no orphan may be left
ENDED = ("disconnected", None)  # a row's status; `None` if there is none


class Limited(Trial):
    """One limit, reached by one service, to whose start and environment it may add."""

    UNWANTED = ()

    def __init__(self, limit, worker_class, url, folder):
        super().__init__(worker_class, url, folder)
        self.limit = limit
        self.environ, self.by = {}, ("env",)
        self.sent, self.names = {}, {}  # accounts by request ids; what each holds upstream
        self.figures = {"restarted": False, "said": "", "workers replaced": 0, "seconds": WELL}

    def work(self):
        """Reach it, leave it behind, balance the books; return what came of it."""
        with closing(self.limit.parts(self)) as parts:
            next(parts)
            with self.service(**self.environ) as (self.stack, _):
                try:
                    self._live_through(parts)
                except AssertionError:
                    self.found.append(f"not well within {WELL:.0f} s")
        return {"limit": self.limit.name} | self.figures | self.result()

    def _live_through(self, parts):
        workers = self._begin()
        next(parts)
        next(parts)
        self._while_it_lasts()
        before = self.said()
        next(parts)
        began = time.monotonic()
        self._until_well()
        self.figures["seconds"] = round(time.monotonic() - began, 1)
        self._balance()
        self._look_at_log(before)
        self._look_at_workers(workers)

    def workers(self):
        """Return the workers."""
        return psutil.Process(self.server.process.pid).children()

    def _begin(self):
        for number in range(2):
            if self._delete(self._make(number)) != 200:
                self.found.append("it was not well before")
        self.accounts = [self._make(number) for number in range(ACCOUNTS)]
        self.stack.sandbox.behave("unipile", "fail")  # which leaves orphans to be written
        self.stack.database.close_all()
        return self.workers()

    def _make(self, number=0):
        account = self.stack.add_email() if number % 2 else self.stack.add_linkedin()
        row = self.stack.row(account)
        self.names[account] = {row["provider_account_id"], row["email_address"]}
        return account

    def _delete(self, account):
        """Return the status of the answer to a DELETE, 0 if there was none in time."""
        headers = {"Authorization": f"Bearer {self.stack.key}", "X-Request-ID": uuid.uuid4().hex}
        if account[0] < "8":
            headers["Idempotency-Key"] = account
        self.sent[headers["X-Request-ID"]] = account
        url = f"{self.stack.url}/api/accounts/{account}"
        with suppress(requests.RequestException):
            return requests.delete(url, headers=headers, timeout=PATIENCE).status_code
        return 0

    def _while_it_lasts(self):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            came = list(pool.map(self._delete, self.accounts))
        self.came = dict(zip(self.accounts, came, strict=True))
        self.answers.update(map(str, came))
        odd = set(came) - self.limit.statuses
        if odd:
            self.found.append(f"answered {sorted(odd)}")

    def _until_well(self):
        """Wait until a DELETE is done; then the others are asked for again, as clients do."""
        self.stack.sandbox.behave("unipile", "ok")
        self.figures["restarted"] = self.server.process.poll() is not None
        if self.figures["restarted"]:  # as a service manager does
            self.start(self.stack, self.server.address[1])
        probe = wait_until(self._made, WELL)
        wait_until(lambda: self._delete(probe) == 200, WELL)
        self._compare()
        for account, status in self.came.items():
            if status != 200:
                wait_until(lambda a=account: self._delete(a) in (200, 404), WELL)

    def _made(self):
        with suppress(Exception):  # the database itself may need a moment
            return self._make()

    def _compare(self):
        """Hold what was answered against what is there."""
        for account, status in self.came.items():
            row = self._status(account)
            if status == 200 and row not in ENDED:
                self.found.append(f"{account}: 200, but it is {row}")
            if status in (500, 503) and row in ENDED:
                self.found.append(f"{account}: {status}, but it has ended")
        rows = {account: self._status(account) for account in self.accounts}
        orphans = self.stack.orphans()
        self.rows = json.dumps(orphans, default=str)
        named = {str(each["account_id"]) for each in orphans}
        for account, row in rows.items():
            if row in ENDED and self._is_alive(account) and account not in named:
                self.found.append(f"{account}: lost")

    def _balance(self):
        for _ in range(PASSES):
            self.stack.make_due()
            self.stack.command("orphans", "retry", "--parked")
        if self.stack.orphans():
            self.found.append(f"orphans left: {[each['reason'] for each in self.stack.orphans()]}")
        alive = self.stack.sandbox.resources
        if any(alive.values()):
            self.found.append(f"alive upstream: {alive}")

    def _status(self, account):
        row = self.stack.row(account)
        return row and row["status"]

    def _is_alive(self, account):
        return any(self.names[account] & held for held in self.stack.sandbox.resources.values())

    def _look_at_log(self, before):
        """Each failure has one line that says why, and no line shows a key."""
        lines = [json.loads(line) for line in before.splitlines() if _is_json(line)]
        errors = [line for line in lines if line["level"] in ("error", "critical")]
        said = [line for line in errors if re.search(self.limit.said, str(_why(line)))]
        self.figures["said"] = _said(said[0]) if said else ""
        if self.limit.said and not said:
            self.found.append(f"no line says {self.limit.said}")
        by_account = Counter(self.sent.get(line.get("request_id")) for line in said)
        for account, status in self.came.items():
            if self.limit.each and status >= 500 and by_account[account] != 1:
                self.found.append(f"{account}: {status}, and {by_account[account]} lines say so")
        after = self.said()
        if "request.failed" in after:
            self.found.append("the log has an internal error")
        self.figures["lines afterwards"] = len(after) - len(before)
        shown = after + self.rows
        keys = [value for name, value in self.stack.environ.items() if name.endswith("_API_KEY")]
        self.found += ["a key was shown" for key in (self.stack.key, *keys) if key in shown]

    def _look_at_workers(self, before):
        now = self.workers()
        self.figures["workers replaced"] = len(set(before) - set(now))
        if len(now) != len(before):
            self.found.append(f"{len(now)} workers of {len(before)}")


def _is_json(line):
    with suppress(ValueError):
        return isinstance(json.loads(line), dict)


def _said(line):
    reason = f": {line['reason']}" if "reason" in line else ""
    return re.sub(r"pid:\d+", "pid", line["event"] + reason)


def _why(line):
    return line.get("reason") or line.get("exception") or line["event"]
