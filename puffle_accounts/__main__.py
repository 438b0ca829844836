"""The console script `puffle-accounts`."""

from __future__ import annotations

from importlib.metadata import version

import click
from flask.cli import ScriptInfo

from puffle_accounts.app import create_app
from puffle_accounts.cli import COMMANDS
from puffle_accounts.cli.terminal import Group
from puffle_accounts.start import DISTRIBUTION


def main() -> None:
    """Run a command."""
    group = Group(
        "puffle-accounts",
        commands=COMMANDS,
        params=[_version()],
        help="Take connected sender accounts apart, safely, whatever the providers do.",
    )
    group(obj=ScriptInfo(create_app=create_app, set_debug_flag=False), prog_name="puffle-accounts")


def _version() -> click.Option:
    """Return `--version`, which needs no configuration that can be used."""

    def show(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked:
            click.echo(version(DISTRIBUTION))
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version and exit.",
    )


if __name__ == "__main__":
    main()
