"""Answers that no tidy provider gives, as bytes: each drawn from its number."""

import functools
import gzip
import json
import random
from dataclasses import dataclass

GONE = b'{"type": "errors/resource_not_found"}'
DEEP = b"[" * 5000 + b"]" * 5000
CHUNKED = b"Transfer-Encoding: chunked"
WAITS = (
    *(b"30", b"-1", b"0", b"9" * 400, b"1e30", b"1.5", b"", b"soon", b"\xff", b"30, 40"),
    *(b"Fri, 31 Dec 9999 23:59:59 GMT", b"Fri, 31 Dec 99999 23:59:59 GMT", b"Mon, 99 Foo 2026"),
    *(b"Mon, 01 Jan 0001 00:00:00 GMT", b"Thu, 01 Jan 1970 00:00:00 -9999", b"Mon, "),
)
BODIES = (
    *(b"", b"{}", b"[]", b"null", b"true", b"0", b'"text"', b"NaN", b"1" * 5000, b"-", b"\0"),
    *(
        DEEP,
        b'{"type": ' + DEEP + b"}",
        b'{"type": "\\ud800"}',
        b'{"type": "\\u0000"}',
        b"\xff\xfe",
    ),
    *(
        b'{"type": 1, "type": null}',
        b'{"type": {"type": []}}',
        b'{"type": "' + b"x" * 99999 + b'"}',
    ),
    *(b"<html>", b"\xef\xbb\xbf{}", b'{"retry_after": 1' + b"0" * 400 + b"}", GONE[:9]),
)
TYPES = (
    b"application/json",
    b"text/html",
    b"text/plain",
    b"",
    b"\xff",
    b"a/b; charset=\0",
    b"x" * 999,
)
JUNK = (
    *(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 99,
    ),
    *(b"<html>HTTP/0.9</html>", b"220 smtp ESMTP\r\n", b"HTTP/1.1", b"HTTP/1.1 200", b"\r\n" * 99),
    *(b"ICY 200 OK\r\n\r\n", b"HTTP/9.9 200 x\r\n\r\n", b"HTTP/1.1 -1 x\r\n\r\n", b""),
)


@dataclass(frozen=True)
class Odd:
    """An answer.

    Args:
        name: of its kind.
        parts: sent one after the other.
        done: whether it says that nothing is left; `None` if it may be read either way.
        closes: whether the connection ends with it.
        pause: seconds between the parts.
    """

    name: str
    parts: tuple[bytes, ...]
    done: bool | None
    closes: bool = True
    pause: float = 0.0


def _head(status, *fields):
    return b"\r\n".join([b"HTTP/1.1 %d x" % status, *fields, b"", b""])


def _sized(status, body, *fields):
    return _head(status, b"Content-Length: %d" % len(body), *fields) + body


def statuses(chance):
    """Every status, with every kind of body."""
    status, body = chance.randrange(100, 1000), chance.choice(BODIES)
    kind = b"Content-Type: " + chance.choice(TYPES)
    done = None if 200 <= status < 300 or status < 200 else False
    return Odd("status", (_sized(status, body, kind),), done)


def lengths(chance):
    """Lengths that are none, or several."""
    written = (b"99999999999999999999", b"-1", b"1e3", b"0x5", b"", b"5, 5", b"\0", b"4294967296")
    fields = [b"Content-Length: " + chance.choice(written) for _ in range(chance.randint(1, 3))]
    return Odd("length", (_head(chance.choice((404, 500)), *fields) + b"{}abc",), False)


def chunks(chance):
    """Chunks that are broken."""
    broken = (
        b"zz\r\n",
        b"-1\r\n{}",
        b"ffffffffffffffffff\r\n{}",
        b"2\r\n{}",
        b"5\r\n{}\r\n0\r\n\r\n",
    )
    body = chance.choice(
        (*broken, b"2;" + b"x" * 200_000, b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 20000)
    )
    fields = [CHUNKED] * chance.randint(1, 2) + [b"Content-Length: 2"] * chance.randint(0, 1)
    return Odd("chunks", (_head(chance.choice((404, 502)), *fields) + body,), False)


def packed(chance):
    """Bodies that are packed, well or badly, and bombs."""
    body = chance.choice((*_bombs(), b"\x1f\x8b\x08", gzip.compress(b"{}"), b"no gzip"))
    coding = chance.choice(
        (b"gzip", b"gzip, gzip", b"gzip, gzip, gzip", b"deflate", b"br", b"zstd", b"x")
    )
    return Odd(
        "packed", (_sized(chance.choice((404, 403)), body, b"Content-Encoding: " + coding),), False
    )


def waits(chance):
    """How long to wait."""
    fields = [
        b"Retry-After: " + chance.choice(WAITS),
        b"X-RateLimit-Reset: " + chance.choice(WAITS),
    ]
    fields += [b"Date: " + chance.choice(WAITS)]
    return Odd("wait", (_sized(chance.choice((429, 503)), chance.choice(BODIES), *fields),), False)


def headers(chance):
    """Headers: many, long, and those that lead astray."""
    field = chance.choice(
        (
            *(b"Location: /here", b"Location: \xff", b"Set-Cookie: a=b; Domain=.example", b"X: \0"),
            *(
                b"\r\n".join(b"X-%d: y" % n for n in range(5000)),
                b"X: " + b"y" * 200_000,
                b"no colon",
            ),
            *(b"Connection: upgrade\r\nUpgrade: h2c", b": no name", b"X: y\r\n folded"),
        )
    )
    return Odd("headers", (_sized(chance.choice((302, 307, 401, 500)), b"{}", field),), False)


def junk(chance):
    """No HTTP, or another one."""
    return Odd("junk", (chance.choice(JUNK),), None)


def slow(chance):
    """A drip that outlasts the deadline, or a silence."""
    drip = _head(chance.choice((404, 500)), b"Content-Length: 9999")
    parts = tuple(drip[n : n + 1] for n in range(len(drip))) + (b"x",) * 100
    return Odd("slow", parts[: chance.randint(0, len(parts))], False, pause=0.1)


def plain(chance):
    """What a tidy provider says."""
    if chance.random() < 0.5:
        return Odd("done", (_sized(200, b'{"object": "AccountDeleted"}'),), True, closes=False)
    answer = _sized(404, GONE, b"Content-Type: application/json")
    return Odd("gone", (answer,), True, closes=False)


@functools.cache  # not at once: to make them takes longer than to import all the rest
def _bombs():
    once = gzip.compress(b"\0" * 10_000_000)
    return once, gzip.compress(once), gzip.compress(b"[" * 50_000_000)


KINDS = (statuses, lengths, chunks, packed, waits, headers, junk, plain, slow)
WEIGHTS = (30, 10, 10, 8, 14, 12, 6, 9, 1)


def odd(seed, number):
    """Return the answer of a number, always the same."""
    chance = random.Random(f"{seed} {number}")
    [kind] = chance.choices(KINDS, WEIGHTS)
    return kind(chance)


def told(number):
    """Return an answer that can be told from every other: its code is its number."""
    return _sized(403, json.dumps({"type": f"told/{number}"}).encode())
