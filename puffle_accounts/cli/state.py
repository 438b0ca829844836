"""What state the service is in: `puffle-accounts plugins` and `puffle-accounts check`."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext

from puffle_accounts.cli import health
from puffle_accounts.cli.terminal import current_service, table


@click.command("plugins")
@with_appcontext
def plugins() -> None:
    """Show the plugins; exit 1 if one is broken."""
    every = current_service().plugins.all
    table(
        ("NAME", "DISTRIBUTION", "HOOKS", "RESOURCE IDS", "STATE"),
        (
            (
                p.name,
                p.distribution,
                ", ".join(name for name, impls in p.impls.items() if impls),
                ", ".join(p.resource_ids) or "none",
                p.state,
            )
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
