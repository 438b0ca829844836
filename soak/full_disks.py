"""Disks that are filled: of a database, of PostgreSQL's parts, of temporary files.

Each limit is a generator of four parts, as `soak.scarce` says.
"""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster import Cluster
from support import wait_until

PAGE = 4096  # bytes
WAL = 16  # MB of a segment
FOLLOWED = "SELECT 1 FROM pg_stat_replication"


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
                replace_worker(trial)
            yield
        yield


def replace_worker(trial):
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
            replace_worker(trial)
            yield
        yield
