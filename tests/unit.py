"""What systemd does for deploy/systemd/puffle-accounts.service, where there is no systemd."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from support import ROOT, wait_until

UNIT = ROOT / "deploy" / "systemd" / "puffle-accounts.service"
GIVE_THE_PORT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Unit:
    """It holds the port, gives credentials as files, and is told when the service is ready.

    Args:
        folder: is made, for the credentials.
        environ: the service's, of which no secret is passed on as a variable.
    """

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        text = UNIT.read_text()
        folder.mkdir()
        self._folder, self._port = folder, socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.url = "http://{}:{}".format(*self._port.getsockname())
        [words] = re.findall("^ExecStart=/opt/puffle-accounts/bin/(.*)$", text, re.M)
        program, *arguments = words.split()
        self._command = [Path(sys.executable).with_name(program), *arguments]
        self._environ = {**os.environ, "PUFFLE_TEARDOWN_TIMEOUT": "2", "WEB_CONCURRENCY": "1"}
        self._environ |= {name: url for name, url in environ.items() if name.endswith("_BASE_URL")}
        for name, file in re.findall(r"^Environment=(\w+)_FILE=%d/(.*)$", text, re.M):
            (folder / file).write_text(environ.get(name, "unused.example.com:443"))
            self._environ[f"{name}_FILE"] = str(folder / file)
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "notify"))
        self._told.setblocking(False)
        self._environ |= {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(folder / "notify")}

    def start(self) -> subprocess.Popen:
        """Start the service, and wait until it says that it is ready, as Type=notify does."""
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", GIVE_THE_PORT, str(self._port.fileno()), *self._command],
                env=self._environ,
                pass_fds=[self._port.fileno()],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._is_ready(process), 100)
        return process

    def _is_ready(self, process: subprocess.Popen) -> bool:
        assert process.poll() is None, (self._folder / "log").read_text()
        with suppress(BlockingIOError):
            return b"READY=1" in self._told.recv(4096)
        return False

    def stop(self) -> None:
        self._port.close()
        self._told.close()
