"""The commands, for `puffle-accounts` and for `flask --app wsgi` alike."""

from __future__ import annotations

import sys

import click
from flask import Flask
from flask.cli import with_appcontext

from puffle_accounts import auth, demo, health, schema
from puffle_accounts.orphan_commands import orphans
from puffle_accounts.sandbox import MODES, PROVIDERS
from puffle_accounts.service import Service
from puffle_accounts.terminal import EXTENSION, Group, current_service, table
from puffle_accounts.text import one_line

db = Group("db", help="Create and migrate the tables.")
keys = Group("keys", help="API keys of users.")


@db.command("upgrade")
def db_upgrade() -> None:
    """Create or migrate the tables; an accounts table that is there is adopted."""
    applied = schema.upgrade(current_service().database)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("The tables are up to date.")


@db.command("status")
def db_status() -> None:
    """Show the migrations; exit 1 if one is pending."""
    rows = schema.status(current_service().database)
    width = max(len(name) for name, _ in rows)
    for name, applied in rows:
        said = f"applied {applied:%Y-%m-%d %H:%M}" if applied else "pending"
        click.echo(f"{name:{width}}  {said}")
    sys.exit(any(applied is None for _, applied in rows))


@keys.command("create")
@click.argument("user_id", type=click.UUID)
@click.option("--name", help="What the key is for.")
def keys_create(user_id: object, name: str | None) -> None:
    """Print a new key of USER_ID; it cannot be shown again."""
    with current_service().database.writing():
        key = auth.create(str(user_id), name and one_line(name))
    click.echo(key)


@keys.command("list")
@click.argument("user_id", type=click.UUID, required=False)
def keys_list(user_id: object | None) -> None:
    """Show keys by their id and first characters."""
    with current_service().database.reading():
        rows = auth.find(user_id)
    table(
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
    with current_service().database.writing():
        revoked = auth.revoke(key_id)
    if not revoked:
        raise click.ClickException(f"there is no live key with the id {key_id}; see keys list")
    click.echo(f"Key {key_id} is revoked.")


@click.command("plugins")
@with_appcontext
def plugins() -> None:
    """Show the plugins; exit 1 if one is broken."""
    every = current_service().plugins.all
    table(
        ("NAME", "DISTRIBUTION", "HOOKS", "STATE"),
        (
            (p.name, p.distribution, ", ".join(n for n, i in p.impls.items() if i), p.state)
            for p in every
        ),
        whole=True,  # the reason why one is broken
    )
    sys.exit(any(plugin.problem for plugin in every))


@click.command("check")
@with_appcontext
def check() -> None:
    """Look whether all is there that a DELETE needs; exit 1 if not."""
    bad = False
    for finding in health.check(current_service()):
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


def init_app(app: Flask, service: Service) -> None:
    """Offer the commands under `flask --app wsgi`, at work on this service."""
    app.extensions[EXTENSION] = service
    for command in COMMANDS:
        app.cli.add_command(command)
