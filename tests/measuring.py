"""What is traced where coverage is measured: what can tell something that nothing else has told.

Tracing takes half as long again as what it traces. So what is done in other processes is left out,
and of imports, which each of xdist's processes makes, all but those of one. `conftest.py` imports
this before all that is large.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest
from coverage import Coverage
from selection import is_beyond

WORKER = os.environ.get("PYTEST_XDIST_WORKER")

if WORKER and (begun := Coverage.current()):
    begun.stop()  # pytest-cov begins in a worker twice, and keeps what it is told the second time


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The process that only hands out tests has told of its imports."""
    measuring = Coverage.current()
    if measuring and getattr(session.config.option, "numprocesses", None):
        measuring.stop()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Of what collects the tests only the imports are measured."""
    if isinstance(collector, pytest.Module) and WORKER in {None, "gw0"}:
        with suppress(collector.CollectError):
            _ = collector.obj
    with _unmeasured():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """What a server does in another process is not seen here."""
    with _unmeasured() if is_beyond(item) else nullcontext():
        return (yield)


@contextmanager
def _unmeasured() -> Iterator[None]:
    measuring = Coverage.current()
    if measuring:
        measuring.stop()
    yield
    if measuring:
        measuring.start()
