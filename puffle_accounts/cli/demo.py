"""`puffle-accounts demo`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


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
    from puffle_accounts.demo.sandbox import PROVIDERS

    return PROVIDERS


def _modes() -> tuple[str, ...]:
    from puffle_accounts.demo.sandbox import MODES

    return MODES


@click.command("demo")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--provider",
    "modes",
    nargs=2,
    multiple=True,
    type=(LazyChoice(_providers), LazyChoice(_modes)),
    help="Let a provider misbehave.",
)
def demo(port: int, modes: tuple[tuple[str, str], ...]) -> None:
    """Run the service with sandbox providers and three accounts to end."""
    from puffle_accounts.demo import runner

    runner.serve(port, dict(modes))
