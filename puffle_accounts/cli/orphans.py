"""The commands of the ledger: `puffle-accounts orphans …`."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections import Counter
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import click

from puffle_accounts import gauges, leases
from puffle_accounts.cli import health
from puffle_accounts.cli.terminal import Group, current_service, cut, echo, json_array, table
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.attempt import RESULTS, Retrier
from puffle_accounts.orphans.due import WAITING
from puffle_accounts.orphans.retry import Pass, Repetition, Scope
from puffle_accounts.service import Service
from puffle_accounts.text import one_line

WIDEST_PLUGIN = 20  # characters of its name in the table of orphans
WIDEST_ID, WIDEST_COUNT = 36, 5  # where they are what they should be
MOST_ROWS = 1000  # that a table shows; --json shows all

group = Group("orphans", help="What was left behind upstream.")


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="All columns of all orphans, as JSON.")
def list_(as_json: bool) -> None:
    """Show the orphans, the oldest first."""
    service = current_service()
    rows = (orphan for page in standing.pages(service.database) for orphan in page)
    if as_json:
        json_array(rows)
        return
    now = service.ledger.now()
    shown = (_orphan_row(orphan, now) for orphan in islice(rows, MOST_ROWS))
    table(("ID", "PLUGIN", "ACCOUNT", "TRIES", "NEXT", "REASON"), shown)
    counts = standing.counts(service.database)
    more = f" ({MOST_ROWS} shown; --json shows all)" if counts["all"] > MOST_ROWS else ""
    echo(health.orphans_said(counts) + more)


def _orphan_row(orphan: dict[str, Any], now: datetime) -> tuple[str, ...]:
    columns = (
        str(orphan["id"])[:8],
        cut(one_line(orphan["plugin"]), WIDEST_PLUGIN),
        str(orphan["account_id"])[:WIDEST_ID],
        str(orphan["attempts"])[:WIDEST_COUNT],
        _next(orphan, now),
        _reason(orphan),
    )
    return tuple(map(one_line, columns))


def _reason(orphan: dict[str, Any]) -> str:
    """Return the reason without the provider's name, which would only push the rest out."""
    reason, name = str(orphan["reason"]), f"{orphan['plugin']}: "
    return reason[len(name) :] if reason.lower().startswith(name) else reason


def _next(orphan: dict[str, Any], now: datetime) -> str:
    due = orphan["next_attempt_at"]
    if orphan["parked_at"] is not None:
        return "parked"
    if _is_ahead(orphan["leased_until"], now, leases.LONGEST):
        return "at work"
    if not _is_ahead(due, now, WAITING.furthest):
        return "now"
    minutes = int((due - now).total_seconds() // 60) + 1
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h"


def _is_ahead(moment: object, now: datetime, furthest: timedelta) -> bool:
    """Whether a time is one to come, and not one that only a wrong clock can have written."""
    return isinstance(moment, datetime) and now < moment <= now + furthest


@group.command("retry")
@click.option("--limit", type=click.IntRange(min=1), help="Try at most so many.")
@click.option("--plugin", "only", metavar="NAME", help="Only what this plugin left.")
@click.option("--parked", is_flag=True, help="The parked ones too.")
@click.option("--every", type=click.FloatRange(0, 86400, min_open=True), help="Repeat, in seconds.")
def retry_(limit: int | None, only: str | None, parked: bool, every: float | None) -> None:
    """Try again what is due; exit 1 if something failed."""
    if every is not None and math.isnan(every):  # in no range, and yet it passes
        raise click.UsageError("--every must be a number of seconds")
    service = current_service()
    stop = _stop_on_signals()
    retrier = Retrier(service.ledger, service.plugins, service.timeout)
    scope = Scope(_concerned(service, only), parked, limit or math.inf)
    if every is not None:
        with gauges.of_orphans(service):
            Repetition(retrier, scope, every, stop).work()
        return
    results = _with_progress(retrier, scope, stop)
    echo(_retry_said(service, results))
    sys.exit(results["failed"] + results["parked"] > 0)


def _concerned(service: Service, only: str | None) -> list[Plugin]:
    active = service.plugins.active
    names = {plugin.name for plugin in active}
    if only is not None and only not in names and only not in standing.plugins(service.database):
        raise click.ClickException(f"no plugin is called {only!r}; see puffle-accounts plugins")
    return [plugin for plugin in active if only in (None, plugin.name)]


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: set() would wait for ever for the wait() that it may interrupt.
        signal.signal(number, lambda *_: threading.Thread(target=stop.set).start())
    return stop


def _with_progress(retrier: Retrier, scope: Scope, stop: threading.Event) -> Counter[str]:
    if not sys.stdout.isatty():
        return Pass(retrier, scope, stop).work()
    with click.progressbar(length=Pass(retrier, scope, stop).count(), label="Retrying") as bar:
        return Pass(retrier, scope, stop, lambda: bar.update(1)).work()


def _retry_said(service: Service, results: Counter[str]) -> str:
    said = ", ".join(f"{results[name]} {name}" for name in RESULTS)
    skipped = standing.plugins(service.database) - {
        plugin.name for plugin in service.plugins.active
    }
    names = ", ".join(sorted(skipped))
    if names:
        said += f"; kept and skipped what is not in use: {names}"
    return said


@group.command("drop")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why nobody needs to tear it down; it is logged.")
def drop(ids: tuple[str, ...], reason: str) -> None:
    """Give orphans up, by their ID or its first characters."""
    if not reason.strip():
        raise click.UsageError("--reason must say why")
    service = current_service()
    found = [standing.find(service.database, one_line(orphan_id)) for orphan_id in ids]
    for given, matching in zip(ids, found, strict=True):
        if len(matching) != 1:
            many = "no orphan has" if not matching else "several orphans have"
            raise click.ClickException(f"{many} the id {one_line(given)}; nothing was dropped")
    for key in dict.fromkeys(key for (key,) in found):
        if service.ledger.drop(key, reason):
            echo(f"dropped {one_line(key)}")


@group.command("count")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def count(as_json: bool) -> None:
    """Show how many orphans are due, waiting and parked, by plugin; for alerts."""
    counted = standing.by_plugin(current_service().database)
    if as_json:
        json_array(
            {
                "plugin": each.plugin,
                "due": each.due,
                "waiting": each.waiting,
                "parked": each.parked,
                "oldest_seconds": round(each.oldest.total_seconds()),
            }
            for each in counted
        )
        return
    table(
        ("PLUGIN", "DUE", "WAITING", "PARKED", "OLDEST"),
        (
            (
                one_line(each.plugin),
                *map(str, (each.due, each.waiting, each.parked)),
                _age(each.oldest),
            )
            for each in counted
        ),
    )


def _age(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    minutes = int(age.total_seconds() // 60)
    return f"{hours // 24}d" if hours >= 48 else f"{hours}h" if hours else f"{minutes}m"
