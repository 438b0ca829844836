"""`puffle-accounts serve`."""

from __future__ import annotations

import os
import shutil
import sys

import click

from puffle_accounts.cli.terminal import Command
from puffle_accounts.processes import SETTINGS, inherited


@click.command(
    "serve",
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GUNICORN ARGUMENTS]")
def serve(arguments: tuple[str, ...]) -> None:
    """Become gunicorn, with the service's settings.

    Before, it looks at what gunicorn reads in the environment, to say in one line what cannot be
    used. Arguments are gunicorn's, such as --bind 0.0.0.0:8000; `gunicorn --help` shows them.
    """
    inherited.look(os.environ)
    program, *words = _gunicorn()
    os.execv(program, [program, *words, "--config", SETTINGS, *arguments])  # noqa: S606 - no shell


def _gunicorn() -> list[str]:
    """Return how gunicorn is started; as a module it could not begin anew by USR2."""
    beside = shutil.which("gunicorn", path=os.path.dirname(sys.executable))
    return [beside] if beside else [sys.executable, "-m", "gunicorn"]
