"""The values of environment variables, each read by its kind and refused by its name.

Imported by gunicorn's master before a worker patches the standard library, so
it imports nothing but the standard library and what does so too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

from puffle_accounts.errors import ConfigError
from puffle_accounts.text import hide, hide_key

PREFIX, FILE = "PUFFLE_", "_FILE"
MOST_IN_FILE = 1 << 16  # bytes


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
        known: the variables that somebody reads.
    """
    names = set(known)
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


def count(environ: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    """Return a whole number above 0, and not above `most`.

    Raises:
        ConfigError: it is anything else.
    """
    value = text(environ, name)
    if value is None:
        return default
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
    if not 0 < number <= (most or number):
        wanted = f"from 1 to {most}" if most else "above 0"
        raise ConfigError(f"{name} must be a whole number {wanted}")
    return number


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
