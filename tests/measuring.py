"""What is traced where coverage is measured: what can tell something that nothing else has told.

Tracing takes half as long again as what it traces. So what is done in other processes is left out,
and of imports, which each of xdist's processes makes, all but those of one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import pytest
from selection import hands_out, is_beyond

FIRST = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """End what pytest-cov began too early: in xdist's processes it begins once more."""
    measuring = _under_way()
    if measuring and (hasattr(session.config, "workerinput") or hands_out(session.config)):
        measuring.stop()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Of what collects the tests only the imports are measured."""
    if isinstance(collector, pytest.Module):
        with suppress(collector.CollectError), of_imports():
            _ = collector.obj
    with _unmeasured():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """What a server does in another process is not seen here."""
    with _unmeasured() if is_beyond(item) else nullcontext():
        return (yield)


def of_imports() -> AbstractContextManager[None]:
    """Measure imports here, if it is here that they are measured."""
    return nullcontext() if FIRST else _unmeasured()


@contextmanager
def _unmeasured() -> Iterator[None]:
    measuring = _under_way()
    if measuring:
        measuring.stop()
    try:
        yield
    finally:
        if measuring:
            measuring.start()


def _under_way():
    """Return the measurement, without importing coverage where there is none."""
    coverage = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()
