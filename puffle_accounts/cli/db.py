"""The commands of the tables: `puffle-accounts db …`."""

from __future__ import annotations

import sys

import click

from puffle_accounts.cli.terminal import Group, current_service, echo
from puffle_accounts.database import schema

group = Group("db", help="Create and migrate the tables.")


@group.command("upgrade")
def upgrade() -> None:
    """Create or migrate the tables; an accounts table that is there is adopted."""
    applied = schema.upgrade(current_service().database)
    for name in applied:
        echo(f"applied {name}")
    if not applied:
        echo("The tables are up to date.")


@group.command("status")
def status() -> None:
    """Show the migrations, and whether the tables are older or newer than this code.

    Exit 1 if they are older: a migration is pending.
    """
    database = current_service().database
    rows, versions = schema.status(database), schema.versions(database)
    width = max(len(name) for name, _ in rows)
    for name, applied in rows:
        said = f"applied {applied:%Y-%m-%d %H:%M}" if applied else "pending"
        echo(f"{name:{width}}  {said}")
    click.echo(versions.said, err=True)
    sys.exit(bool(versions.pending))
