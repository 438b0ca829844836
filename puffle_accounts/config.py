"""The service's configuration, read from the environment once, at the start.

Imported by gunicorn's master before a worker patches the standard library, so
it imports nothing but the standard library and what does so too.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from urllib.parse import urlsplit

from puffle_accounts.errors import ConfigError
from puffle_accounts.text import hide, hide_key

SQLITE, POSTGRESQL = "sqlite", "postgresql"
SCHEMES = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL}
LONGEST_TIMEOUT = 3600.0
PREFIX, FILE = "PUFFLE_", "_FILE"
VARIABLES = (
    "DATABASE_URL",
    "PUFFLE_TEARDOWN_TIMEOUT",
    "PUFFLE_PLUGIN_CALLS",
    "PUFFLE_DISABLED_PLUGINS",
    "PUFFLE_LOG_FORMAT",
)
MOST_IN_FILE = 1 << 16  # bytes
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


def text(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable without the white space around it, `None` if nothing remains.

    `NAME_FILE` may give the path of a file that holds the value instead.

    Raises:
        ConfigError: both are given, or the file cannot be read.
    """
    value, path = (environ.get(each, "").strip() or None for each in (name, f"{name}{FILE}"))
    if path is None:
        return value
    if value is not None:
        raise ConfigError(f"{name} and {name}{FILE} are both set; keep one of them")
    value = _content(f"{name}{FILE}", path)
    hide(name, value)
    return value


def _content(name: str, path: str) -> str:
    """Return what a file holds; no message has its path, which may be the secret by mistake."""
    try:
        with open(path, "rb") as file:
            value = file.read(MOST_IN_FILE).decode("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(f"{name} names a file that cannot be read: {error.strerror}") from None
    except ValueError:
        value = "\0"
    if not value or "\0" in value:
        raise ConfigError(f"{name} names a file that {'is no UTF-8 text' if value else 'is empty'}")
    return value


def unknown(environ: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return each variable that looks like one of ours and is read by nobody, with a hint.

    Args:
        known: the plugins' own variables.
    """
    names = {*VARIABLES, *known}
    readable = names | {f"{name}{FILE}" for name in names}
    services = tuple(
        each.removesuffix("SERVICE_HOST") + part  # by which Kubernetes tells of its services
        for each in environ
        if each.endswith("_SERVICE_HOST")
        for part in ("SERVICE_", "PORT")
    )
    ours = [name for name in environ if name.startswith(PREFIX) and name not in readable]
    return {name: _hint(name, readable) for name in ours if not name.startswith(services)}


def _hint(name: str, readable: Iterable[str]) -> str:
    close = get_close_matches(name, sorted(readable), n=1, cutoff=0.8)
    return f"nobody reads it; did you mean {close[0]}?" if close else "nobody reads it"


def secret(environ: Mapping[str, str], name: str) -> str | None:
    """Return an API key that can travel in a header, `None` if there is none; logs hide it.

    Raises:
        ConfigError: it holds a line break or anything but printable ASCII.
    """
    value = text(environ, name)
    if value and not all("!" <= c <= "~" for c in value):
        raise ConfigError(
            f"{name} must be printable ASCII without spaces or line breaks; copy the key again"
        )
    if value:
        hide_key(value)
    return value


def url(environ: Mapping[str, str], name: str) -> str | None:
    """Return a base URL without a slash at its end, `None` if there is none.

    Raises:
        ConfigError: it is not an http(s) URL with a host and at most a path.
    """
    value = text(environ, name)
    if value and not _is_url(value):
        raise ConfigError(f"{name} must look like https://api.example.com/v1")
    return value and value.rstrip("/")


def host(environ: Mapping[str, str], name: str) -> str | None:
    """Return a `host:port`, `None` if there is none.

    Raises:
        ConfigError: it is anything else.
    """
    value = text(environ, name)
    if value and ("/" in value or not _is_url(f"https://{value}")):
        raise ConfigError(f"{name} must be a host and port such as api8.unipile.com:13851")
    return value


def count(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a whole number above 0.

    Raises:
        ConfigError: it is anything else.
    """
    value = text(environ, name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and int(value[:9]) > 0 and len(value) < 9):
        raise ConfigError(f"{name} must be a whole number above 0")
    return int(value)


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


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or parts.username or parts.password)
            and all("!" <= c <= "~" for c in value)
        )
    except ValueError:
        return False


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
