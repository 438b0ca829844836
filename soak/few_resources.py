"""A worker without descriptors, threads or memory.

Each limit is a generator of four parts, as `soak.scarce` says.
"""

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from support import wait_until

from soak.full_disks import small_disk

CGROUPS = Path("/sys/fs/cgroup")
SPARE = 2 << 20  # bytes that a group may have beyond what it has


@contextmanager
def _limited(trial, resource, soft):
    """Let a worker have so much, by a function of the worker, and afterwards what it had."""
    [worker] = trial.workers()
    before = worker.rlimit(resource)
    worker.rlimit(resource, (soft(worker), before[1]))
    yield
    with suppress(psutil.NoSuchProcess):
        worker.rlimit(resource, before)


def descriptors(spare):
    def run_out(trial):
        yield
        yield
        with _limited(trial, psutil.RLIMIT_NOFILE, lambda worker: _leaving(worker, spare)):
            yield
        yield

    return run_out


def _leaving(worker, spare):
    """Return the limit that leaves so many unused numbers below it."""
    used, limit = {int(each.name) for each in Path(f"/proc/{worker.pid}/fd").iterdir()}, 0
    while spare or limit in used:
        spare -= limit not in used
        limit += 1
    return limit


@contextmanager
def _cgroup(kind):
    """A group of processes, of either version of cgroups."""
    root = CGROUPS / kind if (CGROUPS / kind).exists() else CGROUPS
    group = root / f"puffle-limits-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text() or _emptied(group))
        group.rmdir()


def _emptied(group):
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def threads(trial):
    yield
    yield
    [worker] = trial.workers()
    with _cgroup("pids") as group:
        (group / "cgroup.procs").write_text(str(worker.pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield
        (group / "pids.max").write_text("max")
        yield


def address_space(trial):
    yield
    yield
    with _limited(trial, psutil.RLIMIT_AS, lambda worker: worker.memory_info().vms + 2**20):
        yield
    yield


def memory(trial):
    """A file in memory takes what the group may have: the kernel kills the worker, and others."""
    with small_disk("64m") as disk, _cgroup("memory") as group:
        most, used = (group / name for name in _memory_of(group))
        join = f"echo $$ > {group}/cgroup.procs"
        trial.by = ("sh", "-c", f'{join}; exec "$@"', "sh")
        yield
        yield
        [worker] = trial.workers()
        most.write_text(str(int(used.read_text()) + SPARE))
        ballast = f"dd if=/dev/zero of={disk}/ballast bs=1M count=1 conv=notrunc oflag=append"
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            subprocess.run(("sh", "-c", f"{join}; exec {ballast}"), capture_output=True)
        yield
        (disk / "ballast").unlink()
        yield


def _memory_of(group):
    """Return the names of what it may have, and has."""
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    return first if (group / first[0]).exists() else ("memory.max", "memory.current")
