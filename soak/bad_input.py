"""Bad input against the live service, under both worker classes.

    make badinput ARGS='--cases 20000 --seed 7'

No 500, no hang, no traceback, no worker lost, no answer to another request, nothing ended.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httptools
import psutil
from support import ROOT, Gunicorn, Stack

from puffle_accounts.demo.sandbox import Sandbox
from soak.bad_requests import Requests

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


class Run:
    """All cases against one worker class."""

    def __init__(self, worker_class, seed, count, folder):
        self.worker_class, self.seed, self.count = worker_class, seed, count
        self.folder = folder
        self.found = []
        self.statuses = Counter()

    def work(self):
        """Send all; return what came of it."""
        with Sandbox() as sandbox:
            stack = Stack(f"sqlite:///{self.folder / 'bad.db'}", sandbox)
            victim = stack.add_linkedin()
            stack.database.close_all()
            words = ("--worker-class", self.worker_class)
            server = Gunicorn(stack, self.folder / "log", *words).wait_until_ready()
            try:
                self._send_all(server, Requests(stack.key, victim))
                self._look_at(server, stack, victim)
            finally:
                server.kill()
        return {
            "worker class": self.worker_class,
            "cases": self.sent,
            "answers": dict(sorted(self.statuses.items())),
            "wrong": len(self.found),
            "found": self.found[:20],
        }

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
            self.statuses.update(map(str, answers.statuses or ["none"]))
        why = wrong(case, answers)
        if why:
            self.found.append(f"{case.name[:300]}: {why}")

    def _look_at(self, server, stack, victim):
        log = server.log.read_text()
        self.found += [f"the log has {word}" for word in ("Traceback", "internal") if word in log]
        if stack.row(victim)["status"] != "connected" or stack.sandbox.calls:
            self.found.append("an account was ended")


def _workers(server):
    return {each.pid for each in psutil.Process(server.process.pid).children()}


def main():
    parser = argparse.ArgumentParser(prog="make badinput ARGS='...'", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="to draw, for each worker class")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bad-input.json")
    given = parser.parse_args()
    results = []
    for worker_class in CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(worker_class, given.seed, given.cases, Path(folder))
            results.append(run.work())
            print(json.dumps(results[-1], indent=1), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    return any(each["wrong"] for each in results)


if __name__ == "__main__":
    sys.exit(main())
