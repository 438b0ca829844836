"""Bad input against the live service, under both worker classes and on both databases.

    make badinput ARGS='--cases 20000 --answers 5000 --seed 7'

Bytes on a socket, what schemathesis draws, odd answers of a provider and bombs, odd rows.

No 500, no hang, no traceback, no worker lost, no answer to another request, nothing ended.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httptools
import psutil
import psycopg
from postgresql import postgres_server
from support import ROOT

from soak.bad_answers import Answers as OddAnswers
from soak.bad_bombs import Bombs
from soak.bad_requests import Requests
from soak.bad_rows import Rows
from soak.conforming import Conforming
from soak.live import Trial

CLASSES = ("gevent", "gthread")
PATIENCE = 10.0  # seconds for an answer, or the end of the connection
PAUSE = 0.02  # seconds between the parts of a slow request
AT_ONCE = 8


class Answers:
    """What came on a connection, as an HTTP parser reads it."""

    def __init__(self):
        self.statuses, self.ids, self.body = [], [], b""
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data):
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_header(self, name, value):
        if name.lower() == b"x-request-id":
            self.ids.append(value.decode("latin-1"))

    def on_body(self, body):
        self.body += body

    def on_headers_complete(self):
        self.statuses.append(self._parser.get_status_code())


def send(address, case):
    """Send a case; return its answers, `None` if the connection did not end in time."""
    answers = Answers()
    with socket.create_connection(address, PATIENCE) as connection:
        with suppress(ConnectionError, OSError):  # it may be refused before all is sent
            for part in case.parts:
                connection.sendall(part)
                time.sleep(PAUSE if len(case.parts) > 1 else 0)
            connection.shutdown(socket.SHUT_WR)
        try:
            while data := connection.recv(65536):
                answers.read(data)
        except TimeoutError:
            return None
        except ConnectionError:
            pass
    return answers


def wrong(case, answers):
    """Return what is wrong with the answers to a case, `None` if nothing is."""
    if answers is None:
        return f"no end for {PATIENCE:.0f} s"
    odd = set(answers.statuses) - case.allowed - {100}
    if odd:
        return f"answered {sorted(odd)}"
    if b"Traceback" in answers.body:
        return "a traceback"
    named = [each for each in answers.ids if each.startswith("p-")]
    if named != [f"p-{number}" for number in range(len(named))]:
        return f"answers out of order: {named}"
    return "the smuggled request was answered" if "smuggled" in answers.ids else None


class Run(Trial):
    """All cases against one worker class."""

    INPUT = "bytes on a socket"

    def __init__(self, worker_class, database_url, seed, count, folder):
        super().__init__(worker_class, database_url, folder)
        self.seed, self.count = seed, count

    def work(self):
        """Send all; return what came of it."""
        with self.service() as (stack, server):
            victim = stack.add_linkedin()
            stack.database.close_all()
            self._send_all(server, Requests(stack.key, victim))
            if stack.row(victim)["status"] != "connected" or stack.sandbox.calls:
                self.found.append("an account was ended")
        return self.result() | {"cases": self.sent}

    def _send_all(self, server, requests):
        workers = _workers(server)
        cases = [*requests.all(), *requests.drawn(random.Random(self.seed), self.count)]
        self.sent = len(cases)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for case, answers in zip(
                cases, pool.map(lambda case: send(server.address, case), cases), strict=True
            ):
                self._judge(case, answers)
        if _workers(server) != workers:
            self.found.append("a worker was lost")

    def _judge(self, case, answers):
        if answers:
            self.answers.update(map(str, answers.statuses or ["none"]))
        why = wrong(case, answers)
        if why:
            self.found.append(f"{case.name[:300]}: {why}")


def _workers(server):
    return {each.pid for each in psutil.Process(server.process.pid).children()}


def runs(given, worker_class, url_of, folder):
    """Yield every kind of input for one worker class and one kind of database.

    Args:
        url_of: makes an empty database of a name, and returns its URL.
    """
    seed = given.seed
    yield Run(worker_class, url_of("bytes"), seed, given.cases, folder)
    yield Conforming(worker_class, url_of("conforming"), seed, given.cases // 4, folder)
    yield OddAnswers(worker_class, url_of("answers"), seed, given.answers, folder)
    yield Bombs(worker_class, url_of("bombs"), folder)
    if given.rows:
        yield Rows(worker_class, url_of("rows"), folder)


def _named(kind, worker_class, name):
    return kind(f"{name}-{worker_class}")


def everything(given):
    """Yield what came of each run."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:

        def sqlite(name):
            return f"sqlite:///{Path(folder, name)}.db"

        def postgresql(name):
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return server.get_uri().replace("/postgres?", f"/{name}?")

        for worker_class in CLASSES:
            for kind in (sqlite, postgresql):
                of_its_own = Path(folder, f"{kind.__name__}-{worker_class}")
                of_its_own.mkdir()
                named = partial(_named, kind, worker_class)
                for run in runs(given, worker_class, named, of_its_own):
                    (of_its_own / "log").unlink(missing_ok=True)
                    yield run.work()


def main():
    parser = argparse.ArgumentParser(prog="make badinput ARGS='...'", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="to draw, for each run")
    parser.add_argument("--answers", type=int, default=5000, help="of a provider, for each run")
    parser.add_argument("--rows", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bad-input.json")
    given = parser.parse_args()
    results = []
    for result in everything(given):
        results.append(result)
        print(json.dumps(result, indent=1), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    return any(each["wrong"] for each in results)


if __name__ == "__main__":
    sys.exit(main())
