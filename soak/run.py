"""The soak: everything goes wrong at once for a while, and then the books are balanced.

make soak ARGS='--minutes 10 --seed 7'
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from support import ROOT

from soak import picture, report
from soak.actors import DUE, UNPARK, Clients, Manager, Metronome, Operator
from soak.books import Books
from soak.faults import QUIET, Faults, plan
from soak.providers import RETRIERS
from soak.search import Searcher, search_at_last
from soak.world import DIRECT, World

ENDS = (signal.SIGTERM, signal.SIGINT)
ENDING = 30  # seconds of a run that are left for its end
SHORTEST = 20
DRYING = 120  # seconds until the ledger must be empty


def arguments():
    parser = argparse.ArgumentParser(prog="make soak ARGS='...'", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2, help="in all; 2 if not given")
    parser.add_argument("--seed", type=int, help="drawn, and said, if not given")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak", help="a folder")
    parser.add_argument("--plan", action="store_true", help="show what would go wrong, and end")
    return parser.parse_args()


def main():
    given = arguments()
    for number in ENDS:
        signal.signal(number, _end)
    seed = random.randrange(10**6) if given.seed is None else given.seed
    planned = plan(seed, max(given.minutes * 60 - ENDING, SHORTEST))
    if given.plan:
        print(*planned, sep="\n")
        return 0
    print(f"seed {seed}: {len(planned)} faults", flush=True)
    with World() as world:
        began = time.time()
        run = soak(world, seed, given.minutes, planned)
        drawn = picture.svg(world.book, began, time.time())
        print(report.table(run))
        print(report.write(run, drawn, given.out), report.keep_logs(world.folder, given.out, seed))
        if run["found"]:
            print(report.failure(run, world.book))
    return bool(run["found"])


def soak(world, seed, minutes, planned):
    """Run it all; return what came of it."""
    world.wait_until_up()
    began = time.time()
    manager, operator, metronome = Manager(world), Operator(world), Metronome(world)
    clients, faults = Clients(world, seed), Faults(world, planned)
    searcher = Searcher(world)
    time.sleep(QUIET)
    before = _size(world)
    faults.join()
    clients.finish()
    searcher.finish()
    operator.finish()
    manager.finish()
    metronome.finish()
    settle(world)
    world.wait_until_up()
    books = Books(world)
    balance = books.balance()
    figures = books.figures() | {"before": before, "after": _size(world)}
    figures["seconds"] = round(time.time() - began)
    return report.result(seed, minutes, began, balance, figures, world.book)


def settle(world):
    """Work through the ledger, and then through what only the providers can tell of.

    What is lost is counted in between: it would be found as well.
    """
    run_dry(world)
    books = Books(world)
    world.book.lost = list(books.lost())
    search_at_last(world, books.nobodys())
    run_dry(world)


def run_dry(world):
    """Work through the ledger until nothing is left."""
    until = time.time() + DRYING
    environ = world.stack.process_environ(**world.environ_of(RETRIERS[0], DIRECT))
    while world.sql("SELECT 1 FROM orphans LIMIT 1") and time.time() < until:
        world.sql(DUE)
        world.sql(UNPARK)
        words = (sys.executable, "-m", "puffle_accounts", "orphans", "retry", "--parked")
        subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, check=False)
    for (account,) in world.sql("SELECT account_id::text FROM orphans"):
        world.book.note(account, "its orphan was left")


def _end(number, _):
    """Let everything be ended that runs."""
    sys.exit(f"ended by {signal.Signals(number).name}")


def _size(world):
    return {"MB": world.memory(), "connections": world.connections()}


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else print(ended) or 1
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)  # whoever still waits for an answer is not waited for
