"""What goes wrong, and when: a plan drawn from the seed, and how each fault is made.

Each lane has its own plan, and one fault at a time; lanes meet as they happen to.
"""

import random
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
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
LATEST = 50  # calls among which the ones under way are looked for
RUDE = {"crm": ("rude", "rude", "rude")}  # what a plugin raises, and no provider can make it


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
    world.fail_over()
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
def standby_killed(world, _):
    world.standby.kill()
    yield
    world.standby.start()


@contextmanager
def pooler_restarted(world, _):
    with world.pooler.lock:
        world.pooler.stop()
        yield
        world.pooler.start()


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


def _any_worker(world, planned):
    """Return a worker, `None` where there is none just now, and whose it is."""
    service = planned.one_of(world.services)
    workers = service.workers()
    return planned.one_of(workers) if workers else None, service.name


def _any_retrier(world, planned):
    retrier = planned.one_of(world.retriers)
    return retrier.process, retrier.name


def _send(process, number):
    with suppress(psutil.NoSuchProcess):
        if process:
            process.send_signal(number)


def _worker(number):
    @contextmanager
    def ended(world, planned):
        worker, name = _any_worker(world, planned)
        _send(worker, number)
        yield name

    return ended


def _master(number):
    @contextmanager
    def ended(world, planned):
        service = planned.one_of(world.services)
        service.restart(number)
        yield service.name

    return ended


@contextmanager
def reloaded(world, planned):
    service = planned.one_of(world.services)
    with suppress(AssertionError):  # a master that starts would be ended by it
        wait_until(service.workers)
        service.process.send_signal(signal.SIGHUP)
    yield service.name


@contextmanager
def crashed(world, planned):
    """Master and workers at once."""
    service = planned.one_of(world.services)
    service.crash()
    yield service.name


def _retrier(number):
    @contextmanager
    def ended(world, planned):
        retrier = planned.one_of(world.retriers)
        retrier.restart(number)
        yield retrier.name

    return ended


@contextmanager
def killed_in_a_call(world, planned):
    """kill -9 while a provider works on what it was asked for, before anything is settled."""
    retrier = planned.one_of(world.retriers)

    def calls():
        return [
            c for c in world.book.calls[-LATEST:] if c.caller == retrier.address and not c.ended
        ]

    with suppress(AssertionError):  # there is nothing to do for it just now
        wait_until(calls, 3)
    retrier.restart(signal.SIGKILL)
    yield retrier.name


def _frozen(units):
    """It neither does nor loses anything for longer than a lease, and goes on as if nothing was."""

    @contextmanager
    def still(world, planned):
        process, name = units(world, planned)
        _send(process, signal.SIGSTOP)
        yield name
        _send(process, signal.SIGCONT)

    return still


@contextmanager
def shifted(world, planned):
    """One service and one retrier have a wrong clock."""
    with _with_clock(world, planned, FAKETIME=planned.one_of(SHIFTS)) as names:
        yield names


@contextmanager
def jumping(world, planned):
    """The clock of one service and one retrier jumps while they work."""
    file = world.folder / "clock"
    file.write_text("+0")
    clock = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1"}
    with _with_clock(world, planned, **clock) as names:
        time.sleep(planned.lasts / 2)
        file.write_text(planned.one_of(SHIFTS))
        yield names


@contextmanager
def _with_clock(world, planned, **clock):
    units = (planned.one_of(world.services), planned.one_of(world.retriers))
    for unit in units:
        unit.restart(LD_PRELOAD=str(FAKETIME), **clock)
    yield " ".join(unit.name for unit in units)
    for unit in units:  # a wait may have no end under libfaketime, so politeness proves nothing
        unit.restart(signal.SIGKILL)


# lane -> fault -> (weight, least and most seconds, what makes it)
LANES = {
    "database": {
        "primary killed, standby promoted": (3, 1, 3, failover),
        "stopped": (2, 1, 3, stopped),
        "frozen": (2, 1, 13, frozen),
        "standby frozen": (1, 1, 6, standby_frozen),
        "standby killed": (1, 0.5, 4, standby_killed),
        "pooler restarted": (2, 0, 2, pooler_restarted),
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
        "service crashed": (1, 0, 1, crashed),
        "worker frozen": (2, 2, 16, _frozen(_any_worker)),
        "retrier SIGKILL": (3, 0, 1, _retrier(signal.SIGKILL)),
        "retrier SIGTERM": (1, 0, 1, _retrier(signal.SIGTERM)),
        "retrier killed in a call": (2, 0, 1, killed_in_a_call),
        "retrier frozen": (2, 2, 16, _frozen(_any_retrier)),
        "clock shifted": (1, 4, 12, shifted),
        "clock jumping": (1, 6, 12, jumping),
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


def _trouble(rng, lane):
    return rng.choice((*TROUBLES, *RUDE.get(lane, ()))), rng.uniform(1, 6)


def left_out(world):
    """Return the faults that this machine cannot make, and what it lacks for them."""
    needs = {
        "disk full": (world.disk, "a disk to fill, which root mounts"),
        "clock shifted": (FAKETIME, "libfaketime"),
        "clock jumping": (FAKETIME, "libfaketime"),
        "pooler restarted": (world.pooler, "pgbouncer"),
    }
    return {name: lacks for name, (there, lacks) in needs.items() if not there}


@contextmanager
def fault(world, planned):
    """A fault, written down for as long as it lasts."""
    trouble = Trouble(planned.lane, planned.name, time.time())
    world.book.troubles.append(trouble)
    try:
        with _made(world, planned) as whom:
            trouble.whom = whom or ""
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
    if planned.name == "rude":
        world.rude.touch()
    stand_in.misbehave(name, planned.name)
    yield
    stand_in.misbehave(name, None)
    if planned.name == "rude":
        world.rude.unlink(missing_ok=True)


class Faults:
    """All lanes at work, until each has come to its end."""

    def __init__(self, world, planned):
        self._world, self._began = world, time.time()
        self._left_out = left_out(world)
        lanes = {each.lane for each in planned}
        self._threads = [
            threading.Thread(
                target=self._work, args=([p for p in planned if p.lane == lane],), daemon=True
            )
            for lane in lanes
        ]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Wait for the last of them."""
        for thread in self._threads:
            thread.join()

    def _work(self, planned):
        try:
            for each in planned:
                sleep_until(self._began + each.at)
                if each.name not in self._left_out:
                    with fault(self._world, each):
                        time.sleep(each.lasts)
        except Exception as error:
            print(f"{each.name} could not be made or undone: {error!r}", flush=True)
            self._world.book.unmade.append(f"{each.name}: {error!r}")
