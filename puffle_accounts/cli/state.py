"""What state the service is in: `puffle-accounts plugins` and `puffle-accounts check`."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext

from puffle_accounts.cli import health
from puffle_accounts.cli.terminal import current_service, echo, json_array, table

SHOWN = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


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
@click.option("--local", is_flag=True, help="Ask no provider: for a readiness probe.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(local: bool, as_json: bool) -> None:
    """Look whether all is there that a DELETE needs; exit 1 if not."""
    found = []
    for finding in health.check(current_service(), local):
        found.append(finding)
        if not as_json:
            echo(f"{SHOWN[finding.state]}  {finding.what}: {finding.said}")
    if as_json:
        json_array({"what": f.what, "state": f.state, "said": f.said} for f in found)
    sys.exit(not all(finding.ok for finding in found))
