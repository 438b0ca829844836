"""Which tests run, in which order and how; `foundation` has what they stand on.

No more is imported here than that takes: each of xdist's processes does so, and all wait for the
first.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from importlib.metadata import entry_points
from itertools import groupby

import measuring
import pytest
from postgresql import SHARED
from scratch import move_to_memory
from selection import hands_out, is_beyond, needs, starts_processes

GROUP = "puffle_accounts"  # as `hookspecs` has it, which imports the service
PROCESSES = {"subprocess.Popen", "os.fork", "os.posix_spawn"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what needs a server")
    parser.addoption("--in-process", action="store_true", help="leave out what starts a process")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A test skips itself where it starts a process it must not, so that nobody has to mark it."""
    move_to_memory()
    if config.getoption("hypothesis_profile", None) == "no-shrinking":
        _register_profile()
    left_out = config.getoption("quick") or config.getoption("in_process")
    if left_out and not hands_out(config):
        sys.addaudithook(_skip_at_a_process)
    config.pluginmanager.register(measuring)
    if SHARED not in os.environ:  # a worker has been given its own
        folder = tempfile.TemporaryDirectory(prefix="puffle-tests-")
        os.environ[SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


def _register_profile() -> None:
    """For who asks no more than whether a test fails: the simplest case takes minutes to find."""
    from hypothesis import Phase, settings

    settings.register_profile("no-shrinking", phases=set(Phase) - {Phase.shrink, Phase.explain})


def _skip_at_a_process(event: str, words: tuple) -> None:
    cheap = words[:1] == ("openssl",)
    if event in PROCESSES and not cheap and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip("it starts a process")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays to the end: no search for garbage need look at it, nor so often."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(50_000)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick nothing is begun that needs a server, by its fixtures, or is marked as slow.

    With --in-process the sandbox, which is in this process, is no server.
    """
    beyond = {item for item in items if is_beyond(item)}
    if config.getoption("quick") or config.getoption("in_process"):
        quick = config.getoption("quick")
        left_out = beyond | {item for item in items if quick and needs({"sandbox"}, item)}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    elif hasattr(config, "workerinput"):
        items[:] = _dealt(items, config.workerinput["workercount"])


def _dealt(items: list[pytest.Item], hands: int) -> list[pytest.Item]:
    """Let each worker begin with files that start processes, so that none of these ends alone.

    Each is given as many items, one after the other, and takes from others when it has done them.
    """
    by_file = [list(of_one) for _, of_one in groupby(items, key=lambda item: item.path)]
    long = [of_one for of_one in by_file if any(map(starts_processes, of_one))]
    short = [item for of_one in by_file if of_one not in long for item in of_one]
    dealt = []
    for hand in range(hands):
        dealt += [item for of_one in long[hand::hands] for item in of_one]
        more = max(0, len(items) * (hand + 1) // hands - len(dealt))
        dealt, short = dealt + short[:more], short[more:]
    return dealt + short


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session):
    """The tests count on the three plugins of this project, and on no other.

    What only hands out tests to others needs no fixtures, and so no service.
    """
    foreign = {point.dist.name for point in entry_points(group=GROUP)} - {"puffle-accounts"}
    if foreign:
        pytest.exit(f"uninstall {', '.join(sorted(foreign))} from here first", returncode=1)
    yield
    if not hands_out(session.config):
        with measuring.of_imports():
            session.config.pluginmanager.import_plugin("foundation")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """What was logged may hold half a character; the process that collects reports takes none."""
    report = yield
    report.sections = [
        (name, said.encode(errors="backslashreplace").decode()) for name, said in report.sections
    ]
    return report
