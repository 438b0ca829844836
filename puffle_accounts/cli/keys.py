"""The commands of API keys: `puffle-accounts keys …`."""

from __future__ import annotations

import click

from puffle_accounts import keys
from puffle_accounts.cli.terminal import Group, current_service, echo, table
from puffle_accounts.text import one_line

group = Group("keys", help="API keys of users.")


@group.command("create")
@click.argument("user_id", type=click.UUID)
@click.option("--name", help="What the key is for.")
def create(user_id: object, name: str | None) -> None:
    """Print a new key of USER_ID; it cannot be shown again."""
    with current_service().database.writing():
        key = keys.create(str(user_id), name and one_line(name))
    echo(key)


@group.command("list")
@click.argument("user_id", type=click.UUID, required=False)
def list_(user_id: object | None) -> None:
    """Show keys by their id and first characters."""
    with current_service().database.reading():
        rows = keys.find(user_id)
    table(
        ("ID", "KEY", "USER", "CREATED", "STATE", "NAME"),
        (
            (
                str(key.id),
                f"{key.prefix}…",
                key.user_id,
                f"{key.created_at:%Y-%m-%d}",
                "revoked" if key.revoked_at else "live",
                one_line(key.name or ""),  # other code may have written it
            )
            for key in rows
        ),
    )


@group.command("revoke")
@click.argument("key_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def revoke(key_id: int) -> None:
    """Revoke the key with this ID."""
    with current_service().database.writing():
        revoked = keys.revoke(key_id)
    if not revoked:
        raise click.ClickException(f"there is no live key with the id {key_id}; see keys list")
    echo(f"Key {key_id} is revoked.")
