"""Which tests need what, by their fixtures; no more is imported here than pytest is."""

from __future__ import annotations

import pytest

#: Fixtures that start a process which is the test's own.
OF_ITS_OWN = {"gunicorn", "demo", "cluster", "pooler", "postgres_of_its_own"}
SERVERS = {"postgres", *OF_ITS_OWN}


def hands_out(config: pytest.Config) -> bool:
    """Whether this process runs no test itself, but gives them to others."""
    return bool(config.getoption("numprocesses", None))


def is_beyond(item: pytest.Item) -> bool:
    """Whether it needs a server in another process, or is marked as slow."""
    return needs(SERVERS, item) or item.get_closest_marker("slow") is not None


def starts_processes(item: pytest.Item) -> bool:
    """Whether it, or another test of its file, starts a process of its own."""
    return "deployed" in item.path.parts or not OF_ITS_OWN.isdisjoint(item.fixturenames)


def needs(servers: set[str], item: pytest.Item) -> bool:
    """Whether it asks for one of these fixtures, or is to be run on PostgreSQL."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return (
        not servers.isdisjoint(item.fixturenames) or parameters.get("database_url") == "postgresql"
    )
