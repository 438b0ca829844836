"""Times in PostgreSQL that Python has none for; imported where the database is PostgreSQL alone."""

from __future__ import annotations

from typing import Any

from psycopg import DataError
from psycopg.types.datetime import TimestampLoader, TimestamptzLoader


class _Lenient:
    """Reads a time that Python has none for, such as `infinity`, as text."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)  # type: ignore[misc]
        except DataError:
            return bytes(data).decode()


class _LenientTimestamp(_Lenient, TimestampLoader):
    pass


class _LenientTimestamptz(_Lenient, TimestamptzLoader):
    pass


#: By the type of the column; a connection that has these reads every time.
LOADERS: dict[str, Any] = {"timestamp": _LenientTimestamp, "timestamptz": _LenientTimestamptz}
