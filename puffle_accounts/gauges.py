"""What is measured when OpenTelemetry looks, rather than when something happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peewee import PeeweeException

from puffle_accounts.errors import DatabaseUnavailable
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.standing import Standing
from puffle_accounts.service import Service
from puffle_accounts.telemetry import telemetry
from puffle_accounts.telemetry.silent import Reading

CONNECTION = "puffle.database.connection"


def of_process(service: Service) -> None:
    """Let the calls and the connections of this process be measured."""
    telemetry.observe("puffle.plugin.call.count", lambda: _calls(service))
    telemetry.observe("puffle.plugin.call.max", lambda: _most_calls(service))
    telemetry.observe(f"{CONNECTION}.count", lambda: _connections(service))
    telemetry.observe(f"{CONNECTION}.max", lambda: _most_connections(service))
    telemetry.observe(f"{CONNECTION}.pending_requests", lambda: _pending_requests(service))


@contextmanager
def of_orphans(service: Service) -> Iterator[None]:
    """Let the orphans be measured meanwhile, by a statement whenever somebody looks."""
    telemetry.observe("puffle.orphan.count", lambda: _orphans(service))
    telemetry.observe("puffle.orphan.age.max", lambda: _ages(service))
    try:
        yield
    finally:
        telemetry.observe("puffle.orphan.count", None)
        telemetry.observe("puffle.orphan.age.max", None)


def _calls(service: Service) -> Iterator[Reading]:
    for plugin in service.plugins.active:
        of_plugin = {"puffle.plugin": plugin.name}
        yield plugin.bulkhead.under_way, {**of_plugin, "puffle.plugin.call.state": "under_way"}
        yield plugin.bulkhead.waiting, {**of_plugin, "puffle.plugin.call.state": "waiting"}


def _most_calls(service: Service) -> Iterator[Reading]:
    for plugin in service.plugins.active:
        yield plugin.bulkhead.limit, {"puffle.plugin": plugin.name}


def _connections(service: Service) -> Iterator[Reading]:
    if places := service.database.places():
        yield places.used, {f"{CONNECTION}.state": "used"}
        yield places.idle, {f"{CONNECTION}.state": "idle"}


def _most_connections(service: Service) -> Iterator[Reading]:
    if places := service.database.places():
        yield places.most, {}


def _pending_requests(service: Service) -> Iterator[Reading]:
    if places := service.database.places():
        yield places.waiting, {}


def _orphans(service: Service) -> Iterator[Reading]:
    """Return how many orphans there are, 0 where there is none: a line that ends is no news."""
    found = _standing(service)
    if found is None:
        return
    by_plugin = {each.plugin: each for each in found}
    for plugin in by_plugin.keys() | {plugin.name for plugin in service.plugins.active}:
        for state in ("due", "waiting", "parked"):
            count = getattr(by_plugin.get(plugin), state, 0)
            yield count, {"puffle.plugin": plugin, "puffle.orphan.state": state}


def _ages(service: Service) -> Iterator[Reading]:
    for each in _standing(service) or ():
        yield each.oldest.total_seconds(), {"puffle.plugin": each.plugin}


def _standing(service: Service) -> list[Standing] | None:
    """Return the standing of the orphans, `None` where the database cannot tell."""
    try:
        return standing.by_plugin(service.database)
    except (DatabaseUnavailable, PeeweeException):
        return None  # the log says so: the retrier needs it too
