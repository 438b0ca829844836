"""A burst at healthy providers must leave no orphans: `python -m bench.burst`."""

from bench import accounts, databases, processes
from bench.contestants import GEVENT, GTHREAD
from bench.measure import Load

DELETES, CONNECTIONS, DELAY, LIMIT = 2000, 512, 200, 120


def main():
    print(f"{DELETES} e-mail deletes, {CONNECTIONS} connections, {DELAY} ms per provider call")
    with databases.postgres() as database, processes.provider() as provider:
        for contestant in (GEVENT, GTHREAD):
            database.fill(accounts.rows(accounts.email, 0, DELETES))
            with contestant.start(database, provider, delay=DELAY) as service:
                load = Load(database, provider, service, CONNECTIONS, range(DELETES))
                figures = load.run(LIMIT)
            print(
                f"{contestant.title}: {figures['deletes']} deletes, {figures['rate']:.0f}/s,"
                f" p99 {figures['p99_ms']:.0f} ms, answers: {figures['statuses']},"
                f" orphans: {database.count('orphans')}, left: {database.count('accounts')}"
            )


if __name__ == "__main__":
    main()
