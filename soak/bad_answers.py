"""Odd answers of a provider, through the whole service.

Every DELETE is a 200 in its time; its row has ended, and an orphan is there if the provider did
not say that nothing is left; memory stays bounded; and what is told on a connection afterwards is
not taken for another's.
"""

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psutil
import requests
from wire import Wire, hear

from puffle_accounts import clock
from puffle_accounts.database.models import AccountRow
from soak.live import Trial
from soak.odd_answers import odd, told

AT_ONCE = 8
BATCH = 500  # accounts at a time
TEARDOWN = 2.0  # seconds
SPARE = 15.0  # seconds, on a machine that is busy
MEMORY = 200 << 20  # bytes that a worker may grow by
EVERY = 5  # each such account is told apart by its answer


class Provider(Wire):
    """Answers the account `odd-N` by its number."""

    def __init__(self, seed):
        super().__init__(self._answer)
        self._seed = seed

    def _answer(self, connection, _):
        while request := hear(connection):
            number = int(re.search(rb"/odd-(\d+)[ ?]", request)[1])
            if number % EVERY == 0:
                connection.sendall(told(number))
                continue
            answer = odd(self._seed, number)
            for part in answer.parts:
                connection.sendall(part)
                time.sleep(answer.pause)
            if answer.closes:
                return


class Answers(Trial):
    """All cases against one worker class and one database."""

    INPUT = "odd answers of a provider"
    UNWANTED = (*Trial.UNWANTED, "plugin.failed")

    def __init__(self, worker_class, database_url, seed, count, folder):
        super().__init__(worker_class, database_url, folder)
        self._seed, self._count = seed, count

    def work(self):
        """Send all; return what came of it."""
        with Provider(self._seed) as provider:
            environ = {"UNIPILE_BASE_URL": provider.url, "PUFFLE_TEARDOWN_TIMEOUT": f"{TEARDOWN:g}"}
            with self.service(**environ) as (stack, server):
                workers, before = _workers(server)
                for first in range(0, self._count, BATCH):
                    self.send(stack, range(first, min(first + BATCH, self._count)))
                self._look_at(server, workers, before)
        return self.result()

    def send(self, stack, numbers):
        """Delete an account for each number, and judge what came of it."""
        accounts = {number: str(uuid.uuid4()) for number in numbers}
        now = clock.now()
        rows = [
            {
                **{"id": id, "user_id": stack.user_id, "type": "linkedin", "status": "connected"},
                **{"created_at": now, "updated_at": now, "provider_account_id": f"odd-{number}"},
            }
            for number, id in accounts.items()
        ]
        with stack.database.writing():
            AccountRow.insert_many(rows).execute()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            came = pool.map(lambda n: _delete(stack, accounts[n]), numbers)
            answers = dict(zip(numbers, came, strict=True))
        with stack.database.reading():
            ended = {str(r.id) for r in AccountRow.select() if r.status == "disconnected"}
        reasons = {str(each["account_id"]): each["reason"] for each in stack.orphans()}
        for number, id in accounts.items():
            self._judge(number, answers[number], id in ended, reasons.get(id))
        stack.sql("DELETE FROM orphans")
        stack.sql("DELETE FROM accounts")

    def _judge(self, number, answer, ended, reason):
        answer_given = odd(self._seed, number)
        name = "told apart" if number % EVERY == 0 else answer_given.name
        self.answers[name] += 1
        why = _wrong(answer, ended, reason)
        if number % EVERY == 0:
            why = why or (f"told/{number}" not in (reason or "") and f"another's: {reason}")
        elif answer_given.done is not None and answer_given.done != (reason is None):
            why = why or f"the orphan says {reason}"
        if why:
            sent = b"".join(answer_given.parts)[:200]
            self.found.append(f"{number} {name}: {why}: {sent!r}")

    def _look_at(self, server, workers, before):
        now, size = _workers(server)
        if now != workers:
            self.found.append("a worker was lost")
        if size - before > MEMORY:
            self.found.append(f"memory grew by {(size - before) >> 20} MB")
        print(f"memory: {before >> 20} MB, then {size >> 20} MB", flush=True)


def _delete(stack, account):
    began, id = time.monotonic(), uuid.uuid4().hex
    try:
        answer = stack.delete(account, X_Request_ID=id)
    except requests.RequestException as error:
        return type(error).__name__, None, None
    same = answer.headers.get("X-Request-ID") == id
    took = time.monotonic() - began
    return answer.status_code, answer.headers.get("Teardown-Status"), same and took


def _wrong(answer, ended, reason):
    status, teardown, took = answer
    if status != 200 or not ended:
        return f"answered {status}, ended: {ended}"
    if not took or took > TEARDOWN + SPARE:
        return f"took {took}"
    if (teardown == "partial") != (reason is not None):
        return f"{teardown}, but the orphan says {reason}"
    return None


def _workers(server):
    workers = psutil.Process(server.process.pid).children()
    return {each.pid for each in workers}, sum(each.memory_info().rss for each in workers)
