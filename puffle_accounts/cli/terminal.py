"""What all commands share: one line for a user's mistake, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup
from peewee import PeeweeException

from puffle_accounts.errors import ConfigError, DatabaseUnavailable, SchemaError
from puffle_accounts.service import Service
from puffle_accounts.text import one_line

EXTENSION = "puffle_accounts"
WIDTH = 100
CONFIG_ERROR = 4  # as gunicorn exits where it cannot load the application


class Unusable(click.ClickException):
    """The configuration cannot be used: not to be taken for what a command has found."""

    exit_code = CONFIG_ERROR


class Group(AppGroup):
    """A group whose commands answer a user's mistake with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            click.ClickException: configuration, schema or database stand in the way.
        """
        with _in_one_line():
            return super().invoke(ctx)


class Command(click.Command):
    """A command that does so where it stands alone, as under `flask`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it.

        Raises:
            click.ClickException: configuration, schema or database stand in the way.
        """
        with _in_one_line():
            return super().invoke(ctx)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Unusable(one_line(error)) from error
    except SchemaError as error:
        raise click.ClickException(one_line(error)) from error
    except (DatabaseUnavailable, PeeweeException) as error:
        raise click.ClickException(_database_said(error)) from error


def _database_said(error: Exception) -> str:
    said = one_line(error)
    lacking = said.startswith(("no such table", 'relation "'))
    return f"database: {said}" + ("; run puffle-accounts db upgrade" if lacking else "")


def current_service() -> Service:
    """Return the service of the application whose command runs."""
    found: Service = current_app.extensions[EXTENSION]
    return found


def echo(line: str = "") -> None:
    """Print a line, with escapes for what the output's encoding does not have."""
    out = sys.stdout  # given to click, or it writes UTF-8 where ASCII is asked for
    encoding = out.encoding or "utf-8"
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding), file=out)


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], whole: bool = False) -> None:
    """Print rows in columns, the last one cut so that a line fits, unless it has to be `whole`."""
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for *cells, last in lines:
        start = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
        room = max(WIDTH - len(start), 10)
        echo((start + (last if whole else cut(last, room))).rstrip())


def cut(text: str, width: int) -> str:
    """Return the text, shortened to `width` characters if it is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def json_array(items: Iterator[dict[str, Any]]) -> bool:
    """Print a JSON array one item a line, without holding all; return whether there was one."""
    separator = "["
    for item in items:
        echo(separator + json.dumps(item, default=datetime.isoformat))
        separator = ","
    echo("]" if separator == "," else "[]")
    return separator == ","
