"""The commands, for `puffle-accounts` and for `flask --app wsgi` alike."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from playhouse.shortcuts import model_to_dict

from puffle_accounts import auth, clock, demo, health, retry, schema
from puffle_accounts.config import ConfigError
from puffle_accounts.database import UNAVAILABLE
from puffle_accounts.models import ApiKey, Orphan
from puffle_accounts.sandbox import MODES, PROVIDERS
from puffle_accounts.service import Service
from puffle_accounts.text import one_line

EXTENSION = "puffle_accounts"
WIDTH = 100
WIDEST_PLUGIN = 20  # characters of its name in the table of orphans
MOST_ROWS = 1000  # that a table shows; --json shows all


class Group(AppGroup):
    """A group whose commands answer a user's mistake with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            click.ClickException: configuration, schema or database stand in the way.
        """
        try:
            return super().invoke(ctx)
        except (ConfigError, schema.SchemaError) as error:
            raise click.ClickException(one_line(error)) from error
        except UNAVAILABLE as error:
            raise click.ClickException(_database_said(error)) from error


def _database_said(error: Exception) -> str:
    said = one_line(error)
    lacking = said.startswith(("no such table", 'relation "'))
    return f"database: {said}" + ("; run puffle-accounts db upgrade" if lacking else "")


def _service() -> Service:
    service: Service = current_app.extensions[EXTENSION]
    return service


db = Group("db", help="Create and migrate the tables.")
keys = Group("keys", help="API keys of users.")
orphans = Group("orphans", help="What was left behind upstream.")


@db.command("upgrade")
def db_upgrade() -> None:
    """Create or migrate the tables; an accounts table that is there is adopted."""
    applied = schema.upgrade(_service().database)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("The tables are up to date.")


@db.command("status")
def db_status() -> None:
    """Show the migrations; exit 1 if one is pending."""
    rows = schema.status(_service().database)
    for name, applied in rows:
        click.echo(f"{name}  {f'applied {applied:%Y-%m-%d %H:%M}' if applied else 'pending'}")
    sys.exit(any(applied is None for _, applied in rows))


@keys.command("create")
@click.argument("user_id", type=click.UUID)
@click.option("--name", help="What the key is for.")
def keys_create(user_id: object, name: str | None) -> None:
    """Print a new key of USER_ID; it cannot be shown again."""
    with _service().database.writing():
        key = auth.create(str(user_id), name)
    click.echo(key)


@keys.command("list")
@click.argument("user_id", type=click.UUID, required=False)
def keys_list(user_id: object | None) -> None:
    """Show keys by their id and first characters."""
    query = ApiKey.select().order_by(ApiKey.id)
    if user_id:
        query = query.where(ApiKey.user_id == user_id)
    with _service().database.reading():
        rows = list(query)
    _table(
        ("ID", "KEY", "USER", "CREATED", "STATE", "NAME"),
        (
            (
                str(key.id),
                f"{key.prefix}…",
                key.user_id,
                f"{key.created_at:%Y-%m-%d}",
                "revoked" if key.revoked_at else "live",
                key.name or "",
            )
            for key in rows
        ),
    )


@keys.command("revoke")
@click.argument("key_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def keys_revoke(key_id: int) -> None:
    """Revoke the key with this ID."""
    with _service().database.writing():
        revoked = auth.revoke(key_id)
    if not revoked:
        raise click.ClickException(f"there is no live key with the id {key_id}; see keys list")
    click.echo(f"Key {key_id} is revoked.")


@orphans.command("list")
@click.option("--json", "as_json", is_flag=True, help="All columns of all orphans, as JSON.")
def orphans_list(as_json: bool) -> None:
    """Show the orphans, the oldest first."""
    ledger = _service().ledger
    rows = (orphan for page in ledger.pages() for orphan in page)
    if as_json:
        _json_array(map(_orphan_json, rows))
        return
    now = clock.now()
    shown = (_orphan_row(orphan, now) for orphan, _ in zip(rows, range(MOST_ROWS), strict=False))
    _table(("ID", "PLUGIN", "ACCOUNT", "TRIES", "NEXT", "REASON"), shown)
    counts = ledger.counts()
    more = f" ({MOST_ROWS} shown; --json shows all)" if counts["all"] > MOST_ROWS else ""
    click.echo(health.orphans_said(counts) + more)


def _orphan_row(orphan: Orphan, now: datetime) -> tuple[str, ...]:
    return (
        orphan.id[:8],
        _cut(orphan.plugin, WIDEST_PLUGIN),
        orphan.account_id,
        str(orphan.attempts),
        _next(orphan, now),
        _reason(orphan),
    )


def _reason(orphan: Orphan) -> str:
    """Return the reason without the provider's name, which would only push the rest out."""
    reason: str = orphan.reason
    name = f"{orphan.plugin}: "
    return reason[len(name) :] if reason.lower().startswith(name) else reason


def _next(orphan: Orphan, now: datetime) -> str:
    if orphan.parked_at:
        return "parked"
    if orphan.leased_until and orphan.leased_until > now:
        return "at work"
    if orphan.next_attempt_at <= now:
        return "now"
    minutes = int((orphan.next_attempt_at - now).total_seconds() // 60) + 1
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h"


def _orphan_json(orphan: Orphan) -> dict[str, Any]:
    row: dict[str, Any] = model_to_dict(orphan)
    return row


@orphans.command("retry")
@click.option("--limit", type=click.IntRange(min=1), help="Try at most so many.")
@click.option("--plugin", "only", metavar="NAME", help="Only what this plugin left.")
@click.option("--parked", is_flag=True, help="The parked ones too.")
@click.option("--every", type=click.FloatRange(0, 86400, min_open=True), help="Repeat, in seconds.")
def orphans_retry(limit: int | None, only: str | None, parked: bool, every: float | None) -> None:
    """Try again what is due; exit 1 if something failed."""
    service = _service()
    active = {plugin.name for plugin in service.plugins.active}
    if only and only not in active and only not in service.ledger.plugins():
        raise click.ClickException(f"no plugin is called {only}; see puffle-accounts plugins")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: set() would wait for ever for the wait() that it may interrupt.
        signal.signal(number, lambda *_: threading.Thread(target=stop.set).start())

    def new_run() -> retry.Run:
        most = limit or math.inf
        return retry.Run(service.ledger, service.plugins, service.timeout, most, only, parked, stop)

    if every is not None:
        retry.repeat(lambda: new_run().work(), every, stop)
        return
    run = new_run()
    if sys.stdout.isatty():
        with click.progressbar(length=run.count(), label="Retrying") as bar:
            run.progress = lambda: bar.update(1)
            run.work()
    else:
        run.work()
    click.echo(_retry_said(service, run.results))
    sys.exit(run.results["failed"] + run.results["parked"] > 0)


def _retry_said(service: Service, results: Counter[str]) -> str:
    said = ", ".join(f"{results[r]} {r}" for r in ("done", "superseded", "failed", "parked"))
    skipped = service.ledger.plugins() - {plugin.name for plugin in service.plugins.active}
    if skipped:
        said += f"; kept and skipped what is not in use: {', '.join(sorted(skipped))}"
    return said


@orphans.command("drop")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why nobody needs to tear it down; it is logged.")
def orphans_drop(ids: tuple[str, ...], reason: str) -> None:
    """Give orphans up, by their ID or its first characters."""
    if not reason.strip():
        raise click.UsageError("--reason must say why")
    ledger = _service().ledger
    found = [ledger.find(orphan_id) for orphan_id in ids]
    for given, matching in zip(ids, found, strict=True):
        if len(matching) != 1:
            many = "no orphan has" if not matching else "several orphans have"
            raise click.ClickException(f"{many} the id {given}; nothing was dropped")
    for orphan_id in dict.fromkeys(orphan_id for (orphan_id,) in found):
        if ledger.drop(orphan_id, reason):
            click.echo(f"dropped {orphan_id}")


@click.command("plugins")
@with_appcontext
def plugins() -> None:
    """Show the plugins; exit 1 if one is broken."""
    every = _service().plugins.all
    _table(
        ("NAME", "DISTRIBUTION", "HOOKS", "STATE"),
        (
            (p.name, p.distribution, ", ".join(n for n, i in p.impls.items() if i), p.state)
            for p in every
        ),
    )
    sys.exit(any(plugin.problem for plugin in every))


@click.command("check")
@with_appcontext
def check() -> None:
    """Look whether all is there that a DELETE needs; exit 1 if not."""
    bad = False
    for finding in health.check(_service()):
        bad |= not finding.ok
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.said}")
    sys.exit(bad)


@click.command("demo")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--provider",
    "modes",
    nargs=2,
    multiple=True,
    type=(click.Choice(PROVIDERS), click.Choice(MODES)),
    metavar="NAME MODE",
    help=f"Let a provider misbehave: {', '.join(PROVIDERS)}; {', '.join(MODES)}.",
)
def demo_(port: int, modes: tuple[tuple[str, str], ...]) -> None:
    """Run the service with sandbox providers and three accounts to end."""
    demo.run(port, dict(modes))


COMMANDS = (db, keys, orphans, plugins, check, demo_)


def init_app(app: Flask) -> None:
    """Offer the commands under `flask --app wsgi`."""
    for command in COMMANDS:
        app.cli.add_command(command)


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]] | Any) -> None:
    """Print rows in columns, the last one cut so that a line fits."""
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for *cells, last in lines:
        start = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
        room = max(WIDTH - len(start), 10)
        click.echo((start + _cut(last, room)).rstrip())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _json_array(items: Iterator[dict[str, Any]]) -> None:
    """Print a JSON array one item a line, without holding all items."""
    separator = "["
    for item in items:
        click.echo(separator + json.dumps(item, default=datetime.isoformat))
        separator = ","
    click.echo("]" if separator == "," else "[]")
