"""The forms in which a secret travels: as it is, quoted for a URL, escaped, in base64.

Imported by gunicorn's master before a worker patches the standard library, so it imports
nothing else.
"""

from __future__ import annotations

import base64
import re

_PERCENT = "%(?:25)*"  # quoted twice, the percent sign is quoted too
_ESCAPED = r"\\{0,8}"  # JSON within JSON doubles what escapes
_BASE64 = {  # of a URL's alphabet too, and quoted for one
    "+": rf"(?:[+-]|{_PERCENT}2[Bb])",
    "/": rf"(?:{_ESCAPED}/|_|{_PERCENT}2[Ff])",
}


def pattern(secret: str) -> str:
    """Return a regular expression that matches a secret in each of its forms."""
    return "|".join(["".join(map(_character, secret)), *in_base64(secret)])


def in_base64(secret: str) -> list[str]:
    """Return regular expressions that match a secret in base64, whatever stands beside it."""
    return [_encoded(offset, secret) for offset in range(3)]


def _character(char: str) -> str:
    if char.isascii() and (char.isalnum() or char in "-._~"):  # nobody quotes these (RFC 3986)
        return re.escape(char)
    forms = [_escaped(char), "".join(map(_percent, char.encode(errors="replace")))]
    return f"(?:{'|'.join([*forms, _unicode(char), *([r'[+]'] if char == ' ' else [])])})"


def _escaped(char: str) -> str:
    if char == "\\":
        return r"\\{1,8}"
    return (_ESCAPED if char in "\"'/" else "") + re.escape(char)


def _percent(byte: int) -> str:
    return _PERCENT + _any_case(f"{byte:02x}")


def _unicode(char: str) -> str:
    """Return how JSON and Python write a character in ASCII."""
    units = char.encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    forms = ["".join(rf"\\{{1,8}}u{_any_case(unit)}" for unit in units)]
    if ord(char) < 256:
        forms.append(rf"\\{{1,8}}x{_any_case(f'{ord(char):02x}')}")
    if len(units) > 1:
        forms.append(rf"\\{{1,8}}U{_any_case(f'{ord(char):08x}')}")
    return "|".join(forms)


def _any_case(digits: str) -> str:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in digits)


def _encoded(offset: int, secret: str) -> str:
    """Return the secret in base64 where `offset` bytes stand before it in a group of three.

    Without the characters at its ends that also depend on what stands beside it, and beginning
    with one that has one form: Python looks for a set of first characters fast.
    """
    raw = bytes(offset) + secret.encode(errors="replace")
    encoded = base64.b64encode(raw).decode().rstrip("=")
    inner = encoded[offset and offset + 1 : len(encoded) - bool(len(raw) % 3)]
    return "".join(_BASE64.get(char, char) for char in inner.lstrip("+/"))
