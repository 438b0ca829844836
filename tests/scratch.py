"""Where the tests' files are: in memory, where there is room for them.

A disk's file system takes a seventh of what all the tests take of the processors, for files of
which none is read a minute later.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
ROOM = 2 << 30  # bytes; they have a quarter of that at a time


def move_to_memory() -> None:
    """For this process and all that it starts, unless TMPDIR says where files are to be."""
    if "TMPDIR" not in os.environ and _has_room():
        tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)


def _has_room() -> bool:
    """In a container there are 64 MB, if nobody asked for more, and programs cannot be there."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)):
        return False
    there = os.statvfs(MEMORY)
    free = min(there.f_bavail * there.f_frsize, psutil.virtual_memory().available)
    return free >= ROOM and not there.f_flag & os.ST_NOEXEC
