"""What can run out, and how: each limit is a generator of four parts.

    before the service starts; while it serves; while something has run out; once there is more

What a part makes lasts to the end of the generator, so that it is taken away in any case.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from cluster import Cluster
from support import wait_until

CGROUPS = Path("/sys/fs/cgroup")
SMALLEST_PIPE = PAGE = 4096  # bytes
WAL = 16  # MB of a segment
#: Of a request, its key too: whoever writes an access log chooses what stands in it.
EVERYTHING = "%(r)s %({authorization}i)s"
FOLLOWED = "SELECT 1 FROM pg_stat_replication"
SPARE = 2 << 20  # bytes that a group may have beyond what it has


# Disks


@contextmanager
def small_disk(size, folder=None):
    """A small disk, with what is in the folder that it takes the place of.

    Args:
        size: as `mount` is given it.
        folder: a new one if not given.
    """
    with tempfile.TemporaryDirectory(prefix="puffle-limits-") as place:
        os.chmod(place, 0o755)
        folder, kept = folder or Path(place, "disk"), Path(place, "kept")
        folder.mkdir(exist_ok=True)
        found = folder.stat()
        shutil.copytree(folder, kept, symlinks=True)
        rights = (
            f"size={size},mode={found.st_mode & 0o7777:o},uid={found.st_uid},gid={found.st_gid}"
        )
        subprocess.run(("mount", "-t", "tmpfs", "-o", rights, "none", folder), check=True)
        try:
            for each in kept.iterdir():
                subprocess.run(("cp", "-a", each, folder), check=True)
            for each in folder.rglob("*"):
                os.chown(each, found.st_uid, found.st_gid)
            yield folder
        finally:
            subprocess.run(("umount", "--lazy", folder), check=False)


@contextmanager
def filled(folder):
    """Nothing more can be written there, not even into the last page of a file."""
    for path in filter(Path.is_file, folder.iterdir()):
        with path.open("ab") as file:
            file.write(b"\n" * (-file.tell() % PAGE))
    ballast = folder / "ballast"
    for size in (2**20, 2**12, 1):
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(bytes(size)):
                pass
    yield
    ballast.unlink()


def disk_of_sqlite(trial, replaced=False):
    with small_disk("4m") as disk:
        trial.database_url = f"sqlite:///{disk}/accounts.db"
        yield
        yield
        with filled(disk):
            if replaced:
                _replace_worker(trial)
            yield
        yield


def _replace_worker(trial):
    [worker] = trial.workers()
    worker.kill()
    wait_until(lambda: trial.workers() not in ([], [worker]))


@contextmanager
def _cluster(trial):
    """A primary, and a standby for which nobody waits."""
    with Cluster(synchronous=False) as cluster:
        cluster.a.set("wal_keep_size", "256MB")
        trial.database_url = cluster.url(cluster.a.host)
        yield cluster


def _restarted(node):
    """Start a server that has ended over it, as a service manager does."""
    if node.process.poll() is not None:
        node.start()
    wait_until(node.answers, 60)


def tables_of_postgresql(trial):
    with _cluster(trial) as cluster:
        cluster.a.sql("CHECKPOINT")
        cluster.a.kill()
        with small_disk("40m", cluster.a.folder / "base") as disk:
            cluster.a.start()
            yield
            yield
            with filled(disk):
                yield
            yield


def wal_of_postgresql(trial):
    with _cluster(trial) as cluster:
        cluster.a.kill()
        with small_disk(f"{4 * WAL}m", cluster.a.folder / "pg_wal") as disk:
            cluster.a.start()
            yield
            yield
            with filled(disk):
                _use_up_segments(cluster.a)
                yield
            _restarted(cluster.a)
            yield


def standby_of_postgresql(trial):
    with _cluster(trial) as cluster:
        cluster.b.kill()
        with small_disk("160m", cluster.b.folder) as disk:
            cluster.b.start()
            yield
            yield
            with filled(disk):
                _use_up_segments(cluster.a)
                wait_until(lambda: not cluster.a.sql(FOLLOWED), 60)
                yield
            _restarted(cluster.b)
            wait_until(lambda: cluster.a.sql(FOLLOWED), 60)
            yield


def _use_up_segments(node):
    """Go on to where a new one has to be made, as any load does in time."""
    with suppress(Exception):  # it may end over it
        for _ in range(5):
            node.sql("CREATE TABLE full_soon (n int); DROP TABLE full_soon; SELECT pg_switch_wal()")


def temporary_folder(trial):
    """And meanwhile a worker has to be replaced."""
    with small_disk("1m") as disk:
        trial.environ["TMPDIR"] = str(disk)
        yield
        yield
        with filled(disk):
            _replace_worker(trial)
            yield
        yield


# Descriptors, threads, memory


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


# The log


class Fifo:
    """A pipe that takes little, and its reader."""

    def __init__(self, path):
        os.mkfifo(path)
        self._path, self._read = path, b""
        self.open()

    def open(self):
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
        self.go_on()

    def go_on(self):
        self._reads = True
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()

    def stall(self):
        self._reads = False
        self._thread.join()

    def close(self):
        self.stall()
        os.close(self._reader)

    def _read_on(self):
        while self._reads:
            try:
                self._read += os.read(self._reader, 1 << 16)
            except BlockingIOError:
                time.sleep(0.02)

    def text(self):
        return self._read.decode(errors="replace")


@contextmanager
def _fifo(trial):
    trial.log = trial.folder / "fifo"
    fifo = Fifo(trial.log)
    trial.said = fifo.text
    yield fifo
    fifo.close()


def reader_stalls(trial):
    with _fifo(trial) as fifo:
        yield
        yield
        fifo.stall()
        yield
        fifo.go_on()
        yield


def reader_gone(trial):
    with _fifo(trial) as fifo:
        yield
        yield
        fifo.close()
        yield
        fifo.open()
        yield


def disk_of_log(trial):
    with small_disk("1m") as disk:
        trial.log = disk / "log"
        yield
        yield
        with filled(disk):
            before = trial.said()
            yield
            if trial.said() != before:
                trial.found.append("the log's disk was not full")
        try:
            yield
        finally:
            if "log.dropped" not in trial.said():
                trial.found.append("nobody was told that lines were lost")


def disk_of_access_log(trial):
    with small_disk("1m") as disk:
        trial.words = ("--access-logfile", str(disk / "access"), "--access-logformat", EVERYTHING)
        yield
        yield
        with filled(disk):
            yield
        yield


def unwritable(redirection):
    """Standard error that never was one; it stays so."""

    def run_out(trial):
        trial.by = ("sh", "-c", f'exec "$@" {redirection}', "sh")
        yield
        yield
        yield
        yield

    return run_out


@dataclass(frozen=True)
class Limit:
    """What runs out.

    Args:
        parts: the generator.
        databases: where it matters.
        statuses: those that are right while it lasts, 0 for no answer in time.
        said: what a line of the log says meanwhile, empty where none can be written.
        each: whether each 5xx has exactly one line that says it.
    """

    name: str
    parts: Callable
    databases: tuple[str, ...]
    statuses: frozenset[int]
    said: str
    each: bool = False


BOTH, SQLITE, POSTGRESQL = ("sqlite", "postgresql"), ("sqlite",), ("postgresql",)
OK, LATE = frozenset({200}), frozenset({0, 200})
AWAY = frozenset({200, 500, 503})  # 500: what failed once a provider had been called

LIMITS = (
    Limit("disk of the database", disk_of_sqlite, SQLITE, AWAY, "full", each=True),
    Limit(
        "disk of the database, new worker",
        partial(disk_of_sqlite, replaced=True),
        SQLITE,
        AWAY,
        "full",
        each=True,
    ),
    Limit("disk of the tables", tables_of_postgresql, POSTGRESQL, AWAY, "full", each=True),
    Limit("disk of the WAL", wal_of_postgresql, POSTGRESQL, AWAY, ".", each=True),
    Limit("disk of the standby", standby_of_postgresql, POSTGRESQL, OK, ""),
    Limit("disk of the temporary folder", temporary_folder, SQLITE, OK, ""),
    Limit("file descriptors: none left", descriptors(0), BOTH, LATE, "Too many open files"),
    Limit("file descriptors: one left", descriptors(1), BOTH, LATE | AWAY, "Too many open files"),
    Limit("threads", threads, BOTH, LATE | AWAY, ""),
    Limit("address space", address_space, BOTH, LATE | AWAY, ""),
    Limit("memory", memory, BOTH, LATE, ""),
    Limit("log: its disk", disk_of_log, SQLITE, OK, ""),
    Limit("log: the access log's disk", disk_of_access_log, SQLITE, OK, "No space left"),
    Limit("log: the reader stalls", reader_stalls, SQLITE, OK, ""),
    Limit("log: the reader is gone", reader_gone, SQLITE, OK, ""),
    Limit("log: not to be written", unwritable("2</dev/null"), SQLITE, OK, ""),
    Limit("log: closed", unwritable("2>&-"), SQLITE, OK, ""),
)
