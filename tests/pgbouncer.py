"""A real PgBouncer in front of a real PostgreSQL, as its package configures it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support import free_port, wait_until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needed = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer"
)


class PgBouncer:
    """Nothing is set but where it listens, whom it trusts, and what a test asks for."""

    def __init__(self, postgres_url: str, **settings: object) -> None:
        self._settings = settings
        name, socket_folder = self._server(postgres_url)
        self.folder = Path(tempfile.mkdtemp(prefix="puffle-pgbouncer-"))
        self.folder.chmod(0o777)
        # It refuses to run as root; whom the server runs as may also open the server's socket.
        self.as_whom = ["-u", Path(socket_folder).owner()] if os.geteuid() == 0 else []
        self.port = free_port()
        (self.folder / "users").write_text('"postgres" ""\n')
        self._write(postgres_url)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/{name}"
        self.start()

    @staticmethod
    def _server(postgres_url: str) -> tuple[str, str]:
        """Return the name of the database, and the folder of the server's socket."""
        parts = urlsplit(postgres_url)
        return parts.path[1:], parse_qs(parts.query)["host"][0]

    def _write(self, postgres_url: str) -> None:
        name, socket_folder = self._server(postgres_url)
        port = parse_qs(urlsplit(postgres_url).query).get("port", ["5432"])[0]
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "auth_type": "trust",
            "auth_file": self.folder / "users",
            "unix_socket_dir": "",
            "logfile": self.folder / "log",
            **self._settings,
        }
        (self.folder / "ini").write_text(
            f"[databases]\n{name} = host={socket_folder} port={port} dbname={name}\n[pgbouncer]\n"
            + "".join(f"{key} = {value}\n" for key, value in lines.items())
        )

    def point_to(self, postgres_url: str) -> None:
        """Lead to another server from now on, as an operator does after a failover."""
        self._write(postgres_url)
        self.process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "-q", *self.as_whom, self.folder / "ini"], stderr=subprocess.DEVNULL
        )
        wait_until(lambda: "process up" in self.log())

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        (self.folder / "log").unlink(missing_ok=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
