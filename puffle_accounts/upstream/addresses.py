"""Where an API is: a variable of its own, or a URL with others in it."""

from __future__ import annotations

import string
from collections.abc import Mapping

from puffle_accounts import environment


def named_in(template: str) -> list[str]:
    """Return the variables that a URL names as `{VARIABLE}`."""
    return [each for _, each, *_ in string.Formatter().parse(template) if each]


def address(environ: Mapping[str, str], name: str, default: str) -> tuple[str, list[str]]:
    """Return a base URL, and the variables that it lacks; empty as long as it lacks any.

    Args:
        default: the URL if that variable is not set; `{VARIABLE}` in it stands for the value of
            another one, a host.

    Raises:
        ConfigError: a value cannot be used.
    """
    needed = {each: environment.host(environ, each) for each in named_in(default)}
    given = environment.url(environ, name)
    missing = [] if given else [each for each, value in needed.items() if not value]
    return given or ("" if missing else default.format(**needed)), missing
