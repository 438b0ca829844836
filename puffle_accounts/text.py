"""Make text from elsewhere safe to store and to log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, unquote, urlsplit

from puffle_accounts.disguises import in_base64, pattern

MAX_LINE = 500
SHORTEST_SECRET = 6  # anything shorter would blacken innocent words

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_PATH_NAME = re.compile(r"_(FILE|PATH|DIR)$", re.IGNORECASE)  # where something is, not what
_ALWAYS = re.compile(
    r"pk_live_[\w-]+|(?<=://)[^/\s\"']+(?=@)|(?<=bearer )[^\s\"',]+", re.IGNORECASE
)
_ENCODED_KEY = "|".join(rf"{start}[\w+/=-]*" for start in in_base64("pk_live_"))

_values: set[str] = set()
_secrets = re.compile(_ENCODED_KEY)


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name) and not _PATH_NAME.search(name))


def hide_secrets_of(environ: Mapping[str, str]) -> None:
    """Let `scrub` hide the environment's secrets from now on, and no others.

    They are the values of variables that are called so, and the passwords in any URL.
    """
    _hide({each for name, value in environ.items() for each in _secrets_of(name, value)})


def hide(name: str, value: str) -> None:
    """Let `scrub` hide what is secret of a variable, too, from now on."""
    _hide({*_values, *_secrets_of(name, value)})


def hide_key(key: str) -> None:
    """Let `scrub` hide a key, too, from now on, whatever its variable is called."""
    _hide({*_values, key})


def _hide(values: set[str]) -> None:
    global _values, _secrets  # compiled once: reading the environment for every line costs too much
    values = {each for each in values if len(each) >= SHORTEST_SECRET}
    if values != _values:
        longest_first = sorted(values, key=len, reverse=True)
        _secrets = re.compile("|".join([*map(pattern, longest_first), _ENCODED_KEY]))
        _values = values


def _secrets_of(name: str, value: str) -> set[str]:
    value = value.strip()
    return {value} if is_secret(name) else {*_passwords(value)}


def _passwords(value: str) -> Iterator[str]:
    """Return the passwords in a URL; a word that also stands elsewhere in it is no secret."""
    with suppress(ValueError):
        url = urlsplit(value)
        given = [
            url.password or "",
            *(v for n, v in parse_qsl(url.query) if _SECRET_NAME.search(n)),
        ]
        for each in filter(None, map(unquote, given)):
            if value.count(each) <= 1:
                yield each


def scrub(text: str) -> str:
    """Return `text` with API keys, configured secrets and passwords in URLs hidden."""
    text = _secrets.sub("***", text)
    lower = text.lower()
    if "://" in lower or "pk_live_" in lower or "bearer " in lower:  # rare, and slow to look for
        text = _ALWAYS.sub("***", text)
    return text


def counted(number: int, noun: str) -> str:
    """Return "1 orphan", "2 orphans"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(text: object) -> str:
    """Return `text` as one clean line of at most 500 printable characters, secrets hidden."""
    try:
        raw = str(text)
    except BaseException:  # a plugin's object may do anything, SystemExit included
        raw = f"unprintable {type(text).__name__}"
    printable = "".join(c if c.isprintable() else " " for c in scrub(raw)[: 4 * MAX_LINE])
    return " ".join(printable.split())[:MAX_LINE].rstrip()


def said(error: BaseException) -> str:
    """Return what an error says as one clean line; what kind it is, if it says nothing."""
    return one_line(error) or type(error).__name__
