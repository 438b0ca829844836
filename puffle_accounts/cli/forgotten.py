"""What nobody names any more: `puffle-accounts orphans find` and `orphans adopt`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

import click
from flask.cli import with_appcontext
from peewee import PeeweeException

from puffle_accounts import resources
from puffle_accounts.cli.terminal import current_service, echo, json_array, table
from puffle_accounts.errors import DatabaseUnavailable, ResourceInUse, TeardownFailed
from puffle_accounts.hooks import faults, registry
from puffle_accounts.hooks.hookimpls import FIND
from puffle_accounts.hooks.registry import Plugin, Plugins
from puffle_accounts.orphans import forgotten
from puffle_accounts.orphans.forgotten import Search
from puffle_accounts.text import counted, one_line, said

FOUND, NOT_ASKED = 1, 2  # exit codes
MOST_HOURS = 1_000_000


@click.command("find")
@with_appcontext
@click.option("--plugin", "only", metavar="NAME", help="Ask only this plugin's provider.")
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=24,
    show_default=True,
    help="Leave out what is younger, in hours: it may belong to an account that is being made.",
)
@click.option("--missing", is_flag=True, help="And the accounts that their provider does not know.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def find(only: str | None, hours: float, missing: bool, as_json: bool) -> None:
    """Show what providers hold that no live account and no orphan names.

    Changes nothing. Exits 1 if there is something, 2 if a provider could not be asked.
    """
    if math.isnan(hours) or hours > MOST_HOURS:
        raise click.UsageError(f"--older-than must be a number of hours up to {MOST_HOURS}")
    service = current_service()
    before = service.ledger.now() - timedelta(hours=hours)
    plugins = _searchable(service.plugins, only)
    searches = [Search(service.database, plugin, before, missing) for plugin in plugins]
    asked = [search for search in searches if _ask(search)]
    # Of a list that was read in part, nearly all accounts would seem to be missing.
    rows = chain(
        (row for search in searches for row in _forgotten_rows(search)),
        (row for search in asked if missing for row in _missing_rows(search)),
    )
    found = json_array(rows) if as_json else _show(list(rows))
    sys.exit(NOT_ASKED if len(asked) < len(searches) else FOUND if found else 0)


def _searchable(plugins: Plugins, only: str | None) -> list[Plugin]:
    able = [plugin for plugin in plugins.active if plugin.impls[FIND]]
    if only is not None and only not in {plugin.name for plugin in able}:
        raise click.UsageError(
            f"no plugin called {one_line(only)} can be asked what its provider holds;"
            " see puffle-accounts plugins"
        )
    return [plugin for plugin in able if only in (None, plugin.name)]


def _ask(search: Search) -> bool:
    """Ask a provider for all that it holds; return whether it answered to the end."""
    plugin = search.plugin
    try:
        if not plugin.resource_ids:
            raise TeardownFailed("it declares no RESOURCE_IDS, so nothing can be compared")
        held, label = registry.holdings(plugin), f"Asking {plugin.name}"
        with click.progressbar(held, label=label, show_pos=True, file=sys.stderr) as bar:
            search.compare(bar)
    except (DatabaseUnavailable, PeeweeException, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a plugin does
        if faults.is_fault(error):
            fields = {"plugin": plugin.name, "outcome": said(error)}
            faults.report(error, FIND, fields)
        click.echo(f"{plugin.name} could not be asked: {said(error)}", err=True)
        return False
    return True


def _forgotten_rows(search: Search) -> Iterator[dict[str, Any]]:
    for each in forgotten.oldest_first(search.forgotten.values()):
        yield {
            "plugin": search.plugin.name,
            "resource_id": each.id,
            "name": each.name,
            "created_at": each.created_at,
        }


def _missing_rows(search: Search) -> Iterator[dict[str, Any]]:
    for each in search.missing():
        yield {
            "plugin": search.plugin.name,
            "resource_id": each.resource_id,
            "account_id": each.account_id,
            "missing": True,
        }


def _show(found: list[dict[str, Any]]) -> bool:
    """Print what was found; return whether anything was."""
    held = [row for row in found if "missing" not in row]
    lost = [row for row in found if "missing" in row]
    if held:
        table(("PLUGIN", "CREATED", "RESOURCE", "NAME"), map(_held_row, held), whole=True)
    echo(_totals(held, "resource that nobody names", "resources that nobody names"))
    if lost:
        echo()
        rows = ((row["plugin"], row["account_id"], one_line(row["resource_id"])) for row in lost)
        table(("PLUGIN", "ACCOUNT", "RESOURCE THAT ITS PROVIDER DOES NOT KNOW"), rows, whole=True)
    return bool(found)


def _held_row(row: dict[str, Any]) -> tuple[str, ...]:
    created = row["created_at"]
    return (
        row["plugin"],
        f"{created:%Y-%m-%d}" if created else "unknown",
        one_line(row["resource_id"]),
        one_line(row["name"] or ""),
    )


def _totals(rows: list[dict[str, Any]], one: str, many: str) -> str:
    names = sorted({row["plugin"] for row in rows})
    by_plugin = [f"{sum(row['plugin'] == name for row in rows)} {name}" for name in names]
    said = f"{len(rows)} {one if len(rows) == 1 else many}"
    return f"{said}: {', '.join(by_plugin)}" if rows else said


@click.command("adopt")
@with_appcontext
@click.argument("name", metavar="PLUGIN")
@click.argument("ids", metavar="RESOURCE_ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why it is to be torn down; it is stored and logged.")
def adopt(name: str, ids: tuple[str, ...], reason: str) -> None:
    """Make an orphan of what a provider holds for nobody; the next retry tears it down."""
    service = current_service()
    plugin = service.plugins.find(name)
    if not reason.strip():
        raise click.UsageError("--reason must say why")
    if plugin is None or not plugin.resource_ids:
        raise click.ClickException(
            f"no plugin in use called {one_line(name)} declares RESOURCE_IDS;"
            " see puffle-accounts plugins"
        )
    _refuse_unusable(ids)
    wanted = {resources.comparable(each): each for each in ids}.values()  # an address once
    try:
        new = forgotten.adopt(service.database, plugin, wanted, reason)
    except ResourceInUse as error:
        raise click.ClickException(
            f"a live account uses {one_line(error)}; nothing was adopted"
        ) from error
    for each in new:
        echo(f"adopted {one_line(each)}")
    known = len(wanted) - len(new)
    if known:
        echo(f"{counted(known, 'resource')} had an orphan already")


def _refuse_unusable(ids: Iterable[str]) -> None:
    for each in ids:
        if resources.comparable(each) is None or not each.isprintable():
            said = f"{one_line(each)!r} is no id of a resource; nothing was adopted"
            raise click.UsageError(said)
