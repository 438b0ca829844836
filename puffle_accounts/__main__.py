"""The console script `puffle-accounts`."""

from __future__ import annotations

from flask.cli import ScriptInfo

from puffle_accounts.app import create_app
from puffle_accounts.cli import COMMANDS
from puffle_accounts.cli.terminal import Group


def main() -> None:
    """Run a command."""
    group = Group(
        "puffle-accounts",
        commands=COMMANDS,
        help="Take connected sender accounts apart, safely, whatever the providers do.",
    )
    group(obj=ScriptInfo(create_app=create_app, set_debug_flag=False), prog_name="puffle-accounts")


if __name__ == "__main__":
    main()
