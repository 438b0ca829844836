"""What a waiting request holds: `python -m bench.memory`.

Every request waits for slow providers, and they come faster than they go: for
some seconds all are in flight together.
"""

import resource

from bench import accounts, databases, processes
from bench.contestants import GEVENT
from bench.measure import Load

LEVELS = (1000, 5000)
DELAY = 20_000  # milliseconds per provider call: each delete takes 40 s
RAMP = 15  # seconds over which the requests are sent
LIMIT = 120  # seconds
# Bounds that are there to protect would hide what is measured.
OPTIONS = ("--worker-connections", "6000", "--graceful-timeout", "100")
VARIABLES = {"PUFFLE_PLUGIN_CALLS": "6000", "PUFFLE_TEARDOWN_TIMEOUT": "90"}


def main():
    allow_many_connections()
    with databases.postgres() as database, processes.provider() as provider:
        peaks = [peak(database, provider, level) for level in LEVELS]
    each = (peaks[1] - peaks[0]) * 1e6 / (LEVELS[1] - LEVELS[0])
    print(f"Each further request in flight: {each / 1000:.1f} kB")


def peak(database, provider, requests):
    """Megabytes of the workers and their master while so many requests wait."""
    database.fill(accounts.rows(accounts.email, 0, requests))
    with GEVENT.start(database, provider, *OPTIONS, delay=DELAY, **VARIABLES) as service:
        idle = service.rss() / 1e6
        load = Load(database, provider, service, requests, range(requests), RAMP)
        figures = load.run(LIMIT)
    print(
        f"{requests} in flight: {idle:.0f} MB idle, {figures['peak_rss_mb']:.0f} MB at most;"
        f" p99 {figures['p99_ms'] / 1000:.1f} s of which the providers take"
        f" {2 * DELAY / 1000:.0f},"
        f" answers: {figures['statuses']}, orphans: {database.count('orphans')}"
    )
    return figures["peak_rss_mb"]


def allow_many_connections():
    """As many as this user may; the servers inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
