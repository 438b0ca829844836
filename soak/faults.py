"""What goes wrong, and when: a plan drawn from the seed, and how each fault is made.

Each lane has its own plan, and one fault at a time; lanes meet as they happen to.
"""

import random
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

from support import wait_until

from soak.book import Trouble
from soak.providers import TROUBLES
from soak.world import FAKETIME, sleep_until

PROVIDERS = ("unipile", "instantly", "agentmail", "crm")
QUIET = 4.0  # seconds before the first fault
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
SHIFTS = ("+1h", "-1h", "+2d", "-2d")


@dataclass(frozen=True)
class Planned:
    """A fault to come.

    Args:
        at: seconds after the beginning.
        lasts: seconds.
        draw: a number below 1, by which a fault chooses whom it meets.
    """

    lane: str
    name: str
    at: float
    lasts: float
    draw: float

    def one_of(self, choices):
        return choices[int(self.draw * len(choices))]


# PostgreSQL


@contextmanager
def failover(world, _):
    """kill -9, the standby is promoted; afterwards the old primary is made the new standby."""
    wait_until(lambda: _is_followed(world.primary), 60)
    world.primary.kill()
    world.standby.promote()
    world.primary, world.standby = world.standby, world.primary
    world.primary.set("synchronous_standby_names", "")
    yield
    world.cluster.follow(world.standby, world.primary)
    world.primary.set("synchronous_standby_names", "*")


def _is_followed(node):
    return node.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")


@contextmanager
def stopped(world, _):
    world.primary.kill()
    yield
    world.primary.start()


@contextmanager
def frozen(world, _):
    world.primary.signal(signal.SIGSTOP)
    yield
    world.primary.signal(signal.SIGCONT)


@contextmanager
def standby_frozen(world, _):
    """No commit is acknowledged meanwhile."""
    world.standby.signal(signal.SIGSTOP)
    yield
    world.standby.signal(signal.SIGCONT)


@contextmanager
def read_only(world, _):
    world.primary.set("default_transaction_read_only", "on")
    yield
    world.primary.set("default_transaction_read_only", "off")


@contextmanager
def full(world, _):
    """The disk of both servers is full; whoever ends over it is started again afterwards."""
    ballast = world.disk / "ballast"
    try:
        with ballast.open("wb") as file:
            while True:
                file.write(bytes(2**20))
    except OSError:
        yield
    ballast.unlink()
    for node in (world.primary, world.standby):
        if node.process.poll() is not None:
            node.start()
    wait_until(world.primary.answers)


@contextmanager
def cut(world, planned):
    """Every connection, again and again."""
    until = time.monotonic() + planned.lasts
    while time.monotonic() < until:
        world.primary.sql(CUT)
        time.sleep(0.5)
    yield


# Processes


def _worker(number):
    @contextmanager
    def ended(world, planned):
        workers = planned.one_of(world.services).workers()
        if workers:
            planned.one_of(workers).send_signal(number)
        yield

    return ended


def _master(number):
    @contextmanager
    def ended(world, planned):
        planned.one_of(world.services).restart(number)
        yield

    return ended


@contextmanager
def reloaded(world, planned):
    planned.one_of(world.services).process.send_signal(signal.SIGHUP)
    yield


def _retrier(number):
    @contextmanager
    def ended(world, planned):
        planned.one_of(world.retriers).restart(number)
        yield

    return ended


@contextmanager
def shifted(world, planned):
    """One service and one retrier have a wrong clock."""
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": planned.one_of(SHIFTS)}
    units = (planned.one_of(world.services), planned.one_of(world.retriers))
    for unit in units:
        unit.restart(**clock)
    yield
    for unit in units:  # a wait may have no end under libfaketime, so politeness proves nothing
        unit.restart(signal.SIGKILL)


# lane -> fault -> (weight, least and most seconds, what makes it)
LANES = {
    "database": {
        "primary killed, standby promoted": (3, 1, 3, failover),
        "stopped": (2, 1, 3, stopped),
        "frozen": (2, 1, 13, frozen),
        "standby frozen": (1, 1, 6, standby_frozen),
        "read-only": (1, 1, 3, read_only),
        "disk full": (1, 1, 4, full),
        "connections cut": (3, 0.5, 3, cut),
    },
    "process": {
        "worker SIGKILL": (4, 0, 1, _worker(signal.SIGKILL)),
        "worker SIGTERM": (2, 0, 1, _worker(signal.SIGTERM)),
        "master SIGKILL": (1, 0, 1, _master(signal.SIGKILL)),
        "master SIGTERM": (1, 0, 1, _master(signal.SIGTERM)),
        "HUP": (1, 0, 1, reloaded),
        "retrier SIGKILL": (3, 0, 1, _retrier(signal.SIGKILL)),
        "retrier SIGTERM": (1, 0, 1, _retrier(signal.SIGTERM)),
        "clock shifted": (2, 4, 12, shifted),
    },
}
GAPS = {"database": (4, 14), "process": (1, 6)}  # seconds between two faults
PROVIDER_GAP = (0.5, 6)


def plan(seed, seconds):
    """Return what will go wrong, in the order of time."""
    lanes = {lane: _plan(seed, lane, seconds, GAPS[lane], _drawn) for lane in LANES}
    lanes |= {lane: _plan(seed, lane, seconds, PROVIDER_GAP, _trouble) for lane in PROVIDERS}
    return sorted((each for lane in lanes.values() for each in lane), key=lambda each: each.at)


def _plan(seed, lane, seconds, gap, drawn):
    rng, at = random.Random(f"{seed}/{lane}"), QUIET
    while (at := at + rng.uniform(*gap)) < seconds:
        name, lasts = drawn(rng, lane)
        yield Planned(lane, name, round(at, 2), round(min(lasts, seconds - at), 2), rng.random())
        at += lasts


def _drawn(rng, lane):
    faults = LANES[lane]
    [name] = rng.choices(list(faults), [weight for weight, *_ in faults.values()])
    _, least, most, _ = faults[name]
    return name, rng.uniform(least, most)


def _trouble(rng, _):
    return rng.choice(TROUBLES), rng.uniform(1, 6)


def can_be(world, planned):
    """Whether this machine can make a fault."""
    needs = {"disk full": world.disk, "clock shifted": FAKETIME}
    return bool(needs.get(planned.name, True))


@contextmanager
def fault(world, planned):
    """A fault, written down for as long as it lasts."""
    trouble = Trouble(planned.lane, planned.name, time.time())
    world.book.troubles.append(trouble)
    try:
        with _made(world, planned):
            yield
    finally:
        trouble.ended = time.time()


def _made(world, planned):
    if planned.lane in PROVIDERS:
        return _misbehaving(world, planned)
    return LANES[planned.lane][planned.name][-1](world, planned)


@contextmanager
def _misbehaving(world, planned):
    stand_in, name = world.upstream(planned.lane)
    stand_in.misbehave(name, planned.name)
    yield
    stand_in.misbehave(name, None)


class Faults:
    """All lanes at work, until each has come to its end."""

    def __init__(self, world, planned):
        self.errors = []
        self._world, self._began = world, time.time()
        lanes = {each.lane for each in planned}
        self._threads = [
            threading.Thread(target=self._work, args=([p for p in planned if p.lane == lane],))
            for lane in lanes
        ]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Wait for the last of them. Raises what kept a lane from its work."""
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self, planned):
        try:
            for each in planned:
                sleep_until(self._began + each.at)
                if can_be(self._world, each):
                    with fault(self._world, each):
                        time.sleep(each.lasts)
        except Exception as error:
            print(f"{each.name} could not be made or undone: {error!r}", flush=True)
            self.errors.append(error)
