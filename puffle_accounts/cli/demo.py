"""`puffle-accounts demo`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from puffle_accounts.cli.terminal import Command
from puffle_accounts.processes import inherited
from puffle_accounts.text import one_line

NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class LazyChoice(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """One of what `load` returns, called when somebody asks: the sandbox is not for workers."""

    def __init__(self, load: Callable[[], tuple[str, ...]]) -> None:
        self._load = load

    @property
    def name(self) -> str:  # type: ignore[override]
        """What `--help` shows."""
        return "|".join(self._load())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value if it is one of them."""
        return click.Choice(self._load()).convert(value, param, ctx)


def _providers() -> tuple[str, ...]:
    from puffle_accounts.demo.envelopes import PROVIDERS

    return PROVIDERS


def _modes() -> tuple[str, ...]:
    from puffle_accounts.demo.sandbox import MODES

    return MODES


def _accounts(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[Any]:
    from puffle_accounts.demo.accounts import read

    try:
        return [read(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(one_line(error)) from error


def _variables(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    for each in given:
        name, is_one, _value = each.partition("=")
        if not (is_one and NAME.fullmatch(name)):
            raise click.BadParameter("must be NAME=VALUE")
        if name.startswith("DATABASE_URL"):
            raise click.BadParameter("the demo has a database of its own: --database names it")
    return {name: value for name, _, value in (each.partition("=") for each in given)}


@click.command("demo", cls=Command)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--provider",
    "modes",
    nargs=2,
    multiple=True,
    type=(LazyChoice(_providers), LazyChoice(_modes)),
    help="Let a provider misbehave.",
)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="JSON",
    callback=_accounts,
    help='One more account, such as {"type": "email", "metadata": {"crm": "c-1"}}.',
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_variables,
    help="A variable for the service, such as a plugin's key or base URL.",
)
@click.option(
    "--database",
    type=click.Path(dir_okay=False, resolve_path=True, path_type=Path),
    metavar="FILE",
    help="Keep the database in this file.",
)
def demo(
    port: int,
    modes: tuple[tuple[str, str], ...],
    accounts: list[Any],
    variables: dict[str, str],
    database: Path | None,
) -> None:
    """Run the service with sandbox providers and three accounts to end."""
    from puffle_accounts.demo import runner

    inherited.look(os.environ)

    runner.serve(runner.Plan(port, dict(modes), accounts, variables, database))
