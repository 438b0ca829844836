"""The service's configuration, read from the environment once, at the start.

Imported by gunicorn's master before a worker patches the standard library, so
it imports nothing but the standard library and what does so too.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from puffle_accounts.environment import count, text
from puffle_accounts.errors import ConfigError

SQLITE, POSTGRESQL = "sqlite", "postgresql"
SCHEMES = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL}
LONGEST_TIMEOUT = 3600.0
VARIABLES = (
    "DATABASE_URL",
    "PUFFLE_TEARDOWN_TIMEOUT",
    "PUFFLE_PLUGIN_CALLS",
    "PUFFLE_DISABLED_PLUGINS",
    "PUFFLE_LOG_FORMAT",
)
GRACE = 5.0  # seconds beyond the teardown deadline: for the row change and the answer

# What libpq reads after the scheme; a character that ends a part is escaped inside another.
_HOST = r"(\[[^]\s]+\]|[^][:/?#@,\s]*)(:\d{1,5})?"
_POSTGRESQL = re.compile(
    rf"(?!.*%(?![0-9a-fA-F]{{2}}))([^/?#@\s]*@)?{_HOST}(,{_HOST})*(/[^?#\s]*)?(\?[^#\s]*)?"
)


@dataclass(frozen=True)
class Config:
    """What the core needs to know.

    Args:
        database_url: where the tables are.
        teardown_timeout: seconds for all hooks of one request together.
        plugin_calls: calls under way per plugin in this process, at most.
        disabled_plugins: names of plugins that are not even imported.
        log_format: `text` or `json`.
    """

    database_url: str = "sqlite:///puffle-accounts.db"
    teardown_timeout: float = 10.0
    plugin_calls: int = 512
    disabled_plugins: frozenset[str] = frozenset()
    log_format: str = "json"

    @property
    def database(self) -> str:
        """Where the tables are, for people: without user, password and parameters."""
        scheme, _, rest = self.database_url.partition("://")
        shown = rest if scheme == SQLITE else re.sub(r"^[^/?]*@|\?.*", "", rest)
        return f"{scheme}://{shown}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Read and check every variable but the plugins' own.

        Raises:
            ConfigError: a value cannot be used.
        """
        return cls(
            database_url=_database_url(environ),
            teardown_timeout=_seconds(environ, "PUFFLE_TEARDOWN_TIMEOUT", cls.teardown_timeout),
            plugin_calls=count(environ, "PUFFLE_PLUGIN_CALLS", cls.plugin_calls),
            disabled_plugins=_names(environ, "PUFFLE_DISABLED_PLUGINS"),
            log_format=log_format(environ),
        )


def log_format(environ: Mapping[str, str]) -> str:
    """Return `text` or `json`: what is asked for, else what suits standard error.

    Raises:
        ConfigError: something else is asked for.
    """
    value = text(environ, "PUFFLE_LOG_FORMAT")
    if value is None:
        return "text" if sys.stderr.isatty() else "json"
    if value not in ("text", "json"):
        raise ConfigError("PUFFLE_LOG_FORMAT must be text or json")
    return value


def _database_url(environ: Mapping[str, str]) -> str:
    value = text(environ, "DATABASE_URL") or Config.database_url
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigError("DATABASE_URL must begin with sqlite:/// or postgresql://")
    if SCHEMES[scheme] == SQLITE and not re.fullmatch(r"/(?!:memory:$)[^?#]+", rest):
        raise ConfigError(
            "DATABASE_URL must name a file, without ? and #:"
            " sqlite:///relative.db or sqlite:////absolute.db"
        )
    if SCHEMES[scheme] == POSTGRESQL:
        if not _POSTGRESQL.fullmatch(rest):
            raise ConfigError(
                "DATABASE_URL must look like postgresql://host:5432/name, with user:password@"
                " before the host if need be, and %40 for an @ in the password and so on"
            )
        if not (find_spec("psycopg") and find_spec("psycopg_pool")):
            raise ConfigError(
                "DATABASE_URL names PostgreSQL: install the extra for it, pip install '.[postgres]'"
            )
    return f"{SCHEMES[scheme]}://{rest}"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    value = text(environ, name)
    try:
        seconds = default if value is None else float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ConfigError(f"{name} must be a number of seconds above 0 and up to 3600")
    return seconds


def _names(environ: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(part.strip() for part in (text(environ, name) or "").split(",")) - {""}
