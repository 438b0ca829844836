"""One measurement: one contestant in one scenario."""

import time
from dataclasses import dataclass

from bench import accounts, processes
from bench.contestants import FLOOR, PGBENCH

LOOK = 0.2  # seconds between two looks at the memory
WARM_UP = 1.0
UNDER_WAY = 0.7  # seconds after which the e-mail deletes have reached AgentMail
HANG = 3_600_000  # milliseconds: longer than any scenario


def measure(contestant, scenario, database, provider, seconds):
    """A dictionary of figures."""
    count = scenario.accounts_for(WARM_UP + seconds * (2 if scenario.hung else 1))
    fill(database, scenario, count)
    if contestant is PGBENCH:
        return {"rate": database.pgbench(scenario.connections, count)}
    if contestant is FLOOR:
        return floor(database, scenario, provider, count, seconds)
    agentmail = HANG if scenario.hung else scenario.delay
    options = {"delay": scenario.delay, "agentmail": agentmail}
    with contestant.start(database, provider, **options) as service:
        load = Load(database, provider, service, scenario.connections, range(count))
        load.run(WARM_UP)
        return beside_hung(load, scenario, seconds) if scenario.hung else load.run(seconds)


def fill(database, scenario, count):
    rows = list(accounts.rows(scenario.account, 0, count))
    rows += accounts.rows(accounts.email, count, scenario.hung)
    database.fill(rows)


def floor(database, scenario, provider, count, seconds):
    """The figures of the bare loop, whose own CPU is that of load and server in one."""
    before = provider.cpu()
    with processes.load(
        "bench.floor",
        key=database.key,
        database=database.url,
        provider=provider.port,
        delay=scenario.delay,
        connections=scenario.connections,
        first=0,
        count=count,
        seconds=seconds,
    ) as process:
        figures = processes.summary(process)
    used = 1000 * figures.pop("load_cpu") * figures["seconds"] / figures["deletes"]
    share = (provider.cpu() - before) / figures["seconds"]
    return figures | {"cpu_per_1000": used, "provider_cpu": share}


def beside_hung(load, scenario, seconds):
    """The load again while e-mail deletes hang, and the share of its rate that is left."""
    before = load.run(seconds)
    numbers = range(load.numbers.stop, load.numbers.stop + scenario.hung)
    emails = Load(load.database, load.provider, load.service, scenario.hung, numbers)
    with emails.start(seconds):
        time.sleep(UNDER_WAY)
        during = load.run(seconds)
    return during | {"kept": during["rate"] / before["rate"], "before": before}


@dataclass
class Load:
    """Deletes at one server, each of an account of its own."""

    database: object
    provider: processes.Server
    service: processes.Server
    connections: int
    numbers: range
    ramp: float = 0.0  # seconds over which the first requests are sent

    def start(self, seconds):
        return processes.load(
            port=self.service.port,
            key=self.database.key,
            connections=self.connections,
            first=self.numbers.start,
            count=len(self.numbers),
            seconds=seconds,
            ramp=self.ramp,
        )

    def run(self, seconds):
        """The load generator's figures, and what the load cost the server."""
        cpu, provider_cpu = self.service.cpu(), self.provider.cpu()
        with self.start(seconds) as process:
            peak = self.peak_rss(process)
            figures = processes.summary(process)
        self.numbers = self.numbers[figures["deletes"] :]
        return figures | {
            "cpu_per_1000": 1000 * (self.service.cpu() - cpu) / max(figures["deletes"], 1),
            "peak_rss_mb": peak / 1e6,
            "provider_cpu": (self.provider.cpu() - provider_cpu) / figures["seconds"],
        }

    def peak_rss(self, process):
        peak = self.service.rss()
        while process.poll() is None:
            time.sleep(LOOK)
            peak = max(peak, self.service.rss())
        return peak
