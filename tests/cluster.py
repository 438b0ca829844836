"""A real PostgreSQL primary and its standby, and a load that keeps its books."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import requests
from postgresql import Programs
from support import direct_session, free_port, wait_until

SETTINGS = {
    "fsync": "off",
    "max_connections": 150,
    "wal_sender_timeout": "2s",
    "shared_buffers": "16MB",
}


class Node:
    """One server."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.folder, self.port = folder, free_port()
        self.programs = programs
        self.process: subprocess.Popen | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.folder.parent / f".s.PGSQL.{self.port}"

    def start(self) -> Node:
        settings = {**SETTINGS, "port": self.port, "unix_socket_directories": self.folder.parent}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [self.programs.path("postgres"), "-D", self.folder, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder.parent,
            start_new_session=True,
            **self.programs.as_whom,
        )
        wait_until(self.answers)
        return self

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(f"postgresql://postgres@{self.host}/postgres", autocommit=True)

    def sql(self, statement: str) -> list[tuple]:
        with closing(self.connect()) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.sql("SELECT 1"))
        return False

    def set(self, name: str, value: str) -> None:
        self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")

    def stop_receiving(self) -> None:
        """Stay behind what the primary does from now on."""
        self.set("primary_conninfo", "")
        wait_until(lambda: not self.sql("SELECT 1 FROM pg_stat_wal_receiver"))

    def promote(self) -> None:
        self.programs.run("pg_ctl", "promote", "-w", "-D", self.folder)

    def signal(self, number: int) -> None:
        """Send a signal to the server and all its processes."""
        postmaster = self.process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


class Cluster:
    """A primary, and a standby that streams from it."""

    def __init__(self, synchronous: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="puffle-cluster-"))
        programs = Programs(self.folder)
        self.a, self.b = (Node(self.folder / name, programs) for name in "ab")
        programs.make_data(self.a.folder)
        self.a.start()
        self.follow(self.b, self.a)
        if synchronous:
            self.a.set("synchronous_standby_names", "*")

    @staticmethod
    def follow(standby: Node, primary: Node) -> None:
        """Make one server, anew, the standby of the other."""
        shutil.rmtree(standby.folder, ignore_errors=True)
        source = ("-h", "127.0.0.1", "-p", primary.port, "-U", "postgres")
        primary.programs.run(
            "pg_basebackup", "-D", standby.folder, "-R", "-c", "fast", "-N", *source
        )
        standby.start()

    def url(self, *hosts: str) -> str:
        named = ",".join(hosts or (self.a.host, self.b.host))
        return f"postgresql://postgres@{named}/postgres"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_) -> None:
        self.a.kill()
        self.b.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Load:
    """Clients that end accounts, each again until it is done, and what they were answered."""

    def __init__(self, stack, accounts: list[str], clients: int = 8) -> None:
        self.stack, self.accounts = stack, accounts
        self.statuses: Counter[int] = Counter()
        self.done: dict[str, float] = {}  # when it was answered 200
        self._threads = [
            threading.Thread(target=self._end, args=(accounts[n::clients],), daemon=True)
            for n in range(clients)
        ]

    def __enter__(self) -> Load:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered 200."""
        goal = len(self.done) + more
        wait_until(lambda: len(self.done) >= min(goal, len(self.accounts)), 60)

    def _end(self, accounts: list[str]) -> None:
        with direct_session() as session:
            for account in accounts:
                while (status := self._ask(session, account)) not in (200, 404):
                    time.sleep(0.05)
                if status == 200:
                    self.done[account] = time.monotonic()

    def _ask(self, session: requests.Session, account: str) -> int:
        headers = {"Authorization": f"Bearer {self.stack.key}", "Idempotency-Key": account}
        url = f"{self.stack.url}/api/accounts/{account}"
        status = session.delete(url, headers=headers, timeout=30).status_code
        self.statuses[status] += 1
        return status

    def longest_pause(self) -> float:
        """Return the longest time without a 200, in seconds."""
        moments = [self._began, *sorted(self.done.values())]
        return max(after - before for before, after in itertools.pairwise(moments))

    def lost(self, left: set[str]) -> int:
        """Return how many were answered 200 and are still there."""
        return len(left & set(self.done))
