"""Whether memory grows with what has been done: `python -m bench.growth`.

One worker deletes tens of thousands of accounts, every other one an e-mail account with its three
calls. Its memory is read in between, once nothing is under way: a plateau, or a slope.
"""

import time

from bench import accounts, databases, processes
from bench.contestants import GEVENT, GTHREAD
from bench.measure import Load

LOOKS = (500, 5_000, 10_000, 20_000, 30_000, 40_000)  # deletes
CONNECTIONS = 32
LIMIT = 900  # seconds for the deletes between two looks
REST = 2.0  # seconds until it is looked at


def main():
    with databases.postgres() as database, processes.provider() as provider:
        for contestant in (GEVENT, GTHREAD):
            database.fill(map(account, range(LOOKS[-1])))
            with contestant.start(database, provider, "--workers", "1", delay=0) as service:
                print(contestant.name, *growth(database, provider, service), sep="\n", flush=True)


def account(number):
    return accounts.email(number) if number % 2 else accounts.linkedin(number)


def growth(database, provider, service):
    """Yield a line for each look."""
    done = 0
    for look in LOOKS:
        load = Load(database, provider, service, CONNECTIONS, range(done, look))
        figures = load.run(LIMIT)
        done = look
        time.sleep(REST)
        [worker] = service.root.children()
        memory = worker.memory_info().rss / 1e6
        rate = f"{figures['rate']:.0f}/s, answers: {figures['statuses']}"
        yield f"{look:>6} deletes: {memory:.1f} MB, {worker.num_threads()} threads; {rate}"


if __name__ == "__main__":
    main()
