"""Make text from elsewhere safe to store and to log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MAX_LINE = 500
SHORTEST_SECRET = 6  # anything shorter would blacken innocent words

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_ALWAYS = r"pk_live_[\w-]+|(?<=://)[^/\s\"']+(?=@)|(?i:(?<=bearer ))[^\s\"',]+"
_secrets = re.compile(_ALWAYS)


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def hide_secrets_of(environ: Mapping[str, str]) -> None:
    """Let `scrub` hide the values of the environment's secret variables from now on."""
    global _secrets  # compiled once: reading the environment for every line costs too much
    values = {
        value.strip()
        for name, value in environ.items()
        if is_secret(name) and len(value.strip()) >= SHORTEST_SECRET
    }
    values |= {json.dumps(value)[1:-1] for value in values}  # as a JSON line holds it
    longest_first = sorted(values, key=len, reverse=True)
    _secrets = re.compile("|".join([*map(re.escape, longest_first), _ALWAYS]))


def scrub(text: str) -> str:
    """Return `text` with API keys, configured secrets and passwords in URLs hidden."""
    return _secrets.sub("***", text)


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
