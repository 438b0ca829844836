"""What can run out, and how: each limit is a generator of four parts.

    before the service starts; while it serves; while something has run out; once there is more

What a part makes lasts to the end of the generator, so that it is taken away in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from soak.few_resources import address_space, descriptors, memory, threads
from soak.full_disks import (
    disk_of_sqlite,
    standby_of_postgresql,
    tables_of_postgresql,
    temporary_folder,
    wal_of_postgresql,
)
from soak.lost_logs import (
    disk_of_access_log,
    disk_of_log,
    reader_gone,
    reader_stalls,
    unwritable,
)


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
