"""A network of its own between the service and a database, which can fall silent.

Made of a namespace and a pair of virtual interfaces: packets are really lost, so that it is the
kernel's time-outs that count. Needs root, and `ip` of iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import free_port, wait_until_listening

CAN_BE_MADE = os.geteuid() == 0 and shutil.which("ip") is not None
#: Passes on every connection to a socket in the file system, which knows no namespace.
RELAY = """
import asyncio, sys

async def pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    writer.close()

async def serve(reader, writer):
    there = await asyncio.open_unix_connection(sys.argv[3])
    await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer))

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), backlog=512)
    await server.serve_forever()

asyncio.run(main())
"""


def ip(*words: str) -> None:
    """Change the network; it must succeed."""
    subprocess.run(("ip", *words), check=True, capture_output=True)


class SilentNetwork:
    """A database's socket, reached through a network that may lose every answer.

    Args:
        database: the path of the socket that the database listens on.
    """

    def __init__(self, database: Path) -> None:
        self.name = f"puffle{os.getpid()}"
        self.ours, self.theirs = (f"pf{os.getpid()}{side}" for side in "ab")
        # A network for each process that tests, within those for documentation and tests.
        net = f"198.18.{os.getpid() // 64 % 256}.{os.getpid() % 64 * 4}"
        self.here, self.there = (
            f"{net.rpartition('.')[0]}.{int(net.rpartition('.')[2]) + n}" for n in (1, 2)
        )
        self.port = free_port()
        self.database = database

    @property
    def host(self) -> str:
        return f"{self.there}:{self.port}"

    def __enter__(self) -> SilentNetwork:
        ip("netns", "add", self.name)
        ip(
            "link",
            "add",
            self.ours,
            "type",
            "veth",
            "peer",
            "name",
            self.theirs,
            "netns",
            self.name,
        )
        ip("addr", "add", f"{self.here}/30", "dev", self.ours)
        ip("link", "set", self.ours, "up")
        self._inside("addr", "add", f"{self.there}/30", "dev", self.theirs)
        self._inside("link", "set", self.theirs, "up")
        words = (sys.executable, "-c", RELAY, self.there, str(self.port), str(self.database))
        self.relay = subprocess.Popen(("ip", "netns", "exec", self.name, *words))
        wait_until_listening(self.there, self.port)
        return self

    def __exit__(self, *_) -> None:
        self.relay.kill()
        self.relay.wait()
        ip("netns", "del", self.name)

    def fall_silent(self) -> None:
        """Lose whatever the other side sends, its acknowledgements too."""
        self._inside("route", "add", "blackhole", f"{self.here}/32")

    def speak(self) -> None:
        """Lose nothing more."""
        self._inside("route", "del", "blackhole", f"{self.here}/32")

    def _inside(self, *words: str) -> None:
        ip("-n", self.name, *words)
