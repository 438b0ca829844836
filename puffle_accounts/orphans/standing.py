"""What stands in the ledger, for those who only look; nothing in a row keeps them from the others.

A row may have been written by hand, by another version or under a wrong clock.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from puffle_accounts import clock
from puffle_accounts.account import frozen
from puffle_accounts.database import Database
from puffle_accounts.database.postgres import Postgres
from puffle_accounts.orphans.due import WAITING

OLD = timedelta(days=90)  # parked and older, it is somebody's data that nobody looks after
PAGE = 1000

COLUMNS = (
    *("id", "plugin", "account_id", "user_id", "account", "reason", "attempts"),
    *("created_at", "next_attempt_at", "leased_until", "parked_at", "request_id"),
)
# The snapshot as text: psycopg would read the JSON itself, and fail where this goes on.
SELECTED = ", ".join(COLUMNS).replace(" account,", " CAST(account AS TEXT),")
CREATED = COLUMNS.index("created_at")
TIMES = COLUMNS[CREATED : CREATED + 4]

NIL, MAX = (str(uuid.UUID(int=number)) for number in (0, 2**128 - 1))
UUID = re.compile("-".join(f"[0-9a-f]{{{length}}}" for length in (8, 4, 4, 4, 12)))
BEGINNING = "substr(CAST(id AS TEXT), 1, ?) = ?"

COUNTS = """
SELECT count(*), count(parked_at), count(CASE WHEN parked_at IS NOT NULL
    AND (parked_at < clock(?) OR created_at < clock(?)) THEN 1 END) FROM orphans"""

STANDING = """
SELECT plugin, count(*), count(parked_at),
    count(CASE WHEN parked_at IS NULL AND next_attempt_at NOT BETWEEN clock(?) AND clock(?)
        THEN 1 END),
    min(created_at), clock(?)
FROM orphans GROUP BY plugin ORDER BY plugin"""


class Standing(NamedTuple):
    """How many orphans a plugin has, by what they wait for, and how old the oldest is."""

    plugin: str
    due: int
    waiting: int
    parked: int
    oldest: timedelta


def pages(database: Database) -> Iterator[list[dict[str, Any]]]:
    """Return all orphans, the oldest first, a page at a time, each by its `COLUMNS`."""
    start = ""
    after: tuple[Any, ...] = ()
    while True:
        statement = f"SELECT {SELECTED} FROM orphans {start}ORDER BY created_at, id LIMIT {PAGE}"
        with database.reading():
            rows = database.sql(statement, *after).fetchall()
        yield [_legible(row) for row in rows]
        if len(rows) < PAGE:
            return
        start = "WHERE (created_at, id) > (?, ?) "
        after = (clock.bound(rows[-1][CREATED]), rows[-1][0])


def snapshots(database: Database, plugin: str) -> Iterator[str]:
    """Return the snapshots of all orphans of a plugin as JSON."""
    start = ""
    after: tuple[Any, ...] = ()
    while True:
        statement = (
            "SELECT id, CAST(account AS TEXT) FROM orphans WHERE plugin = ?"
            f" {start}ORDER BY id LIMIT {PAGE}"
        )
        with database.reading():
            rows = database.sql(statement, plugin, *after).fetchall()
        yield from (text for _, text in rows)
        if len(rows) < PAGE:
            return
        start, after = "AND id > ? ", (rows[-1][0],)


def counts(database: Database) -> dict[str, int]:
    """Return how many orphans there are: `all`, `parked`, and `old` (parked, 90 days old)."""
    with database.reading():
        row = database.sql(COUNTS, -OLD, -OLD).fetchone()
    return dict(zip(("all", "parked", "old"), row, strict=True))


def by_plugin(database: Database) -> list[Standing]:
    """Return how many orphans each plugin has."""
    with database.reading():
        rows = database.sql(STANDING, timedelta(), WAITING.furthest, timedelta()).fetchall()
    return [
        Standing(_plain(plugin), due, all_ - parked - due, parked, _age(oldest, now))
        for plugin, all_, parked, due, oldest, now in rows
    ]


def plugins(database: Database) -> set[str]:
    """Return the names of the plugins that have orphans."""
    with database.reading():
        rows = database.sql("SELECT DISTINCT plugin FROM orphans").fetchall()
    return {_plain(name) for (name,) in rows}


def find(database: Database, start: str) -> list[Any]:
    """Return up to two ids that begin with `start`; nothing begins with nothing."""
    start = start.lower()
    which: str = BEGINNING
    params: tuple[Any, ...] = (max(len(start), 1), start)
    if isinstance(database, Postgres):  # whose ids are UUIDs, so that an index can be used
        lowest, highest = (start + each[len(start) :] for each in (NIL, MAX))
        if not start or not UUID.fullmatch(lowest):
            return []
        which, params = "id BETWEEN ? AND ?", (lowest, highest)
    with database.reading():
        rows = database.sql(f"SELECT id FROM orphans WHERE {which} LIMIT 2", *params).fetchall()
    return [found for (found,) in rows]


def _legible(row: Any) -> dict[str, Any]:
    return {name: READ_AS.get(name, _plain)(v) for name, v in zip(COLUMNS, row, strict=True)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """Return what JSON and a person can read, for what a column may hold."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    is_json = value is None or isinstance(value, int) or _is_finite(value)
    return value if is_json else str(value)


def _json(text: str) -> Any:
    """Return what a snapshot says, or the text itself where nobody could read it all."""
    try:
        found = json.loads(text)
        json.dumps(frozen(found), default=dict, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return found


def _moment(value: Any) -> Any:
    """Return a time, or what stands in its place."""
    try:
        return clock.moment(value)
    except ValueError:
        return _plain(value)


READ_AS: dict[str, Callable[[Any], Any]] = {
    "account": _json,
    **dict.fromkeys(TIMES, _moment),
}


def _age(oldest: Any, now: Any) -> timedelta:
    began, present = _moment(oldest), _moment(now)
    return max(present - began, timedelta()) if isinstance(began, datetime) else timedelta()
