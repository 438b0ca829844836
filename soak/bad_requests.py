"""Requests that no tidy client would send, as bytes: drawn from a seed, or one for each byte."""

import itertools
from dataclasses import dataclass

NOWHERE = "00000000-0000-0000-0000-000000000000"
PATH = f"/api/accounts/{NOWHERE}".encode()
LONG = 70_000  # bytes: beyond every limit


@dataclass(frozen=True)
class Case:
    """Bytes to send on one connection.

    Args:
        name: what is odd.
        parts: sent one after the other, with a pause between.
        allowed: the statuses of the answers; none at all is allowed too.
    """

    name: str
    parts: tuple[bytes, ...]
    allowed: frozenset[int]


REFUSED = frozenset({400, 401, 404, 405, 408, 409, 411, 413, 414, 417, 422, 431, 501, 505})
OURS = frozenset({400, 401, 404, 405, 409, 422})


class Requests:
    """All kinds.

    Args:
        key: of a user, valid.
        victim: an account of theirs that no case may end.
    """

    def __init__(self, key, victim):
        self._auth = f"Authorization: Bearer {key}".encode()
        self._smuggled = self.request(f"/api/accounts/{victim}".encode(), b"X-Request-ID: smuggled")

    def request(self, target=PATH, *headers, method=b"DELETE", version=b"HTTP/1.1"):
        lines = [b" ".join((method, target, version)), b"Host: x", self._auth, *headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def all(self):
        """Every case that is always the same."""
        kinds = (
            self.lines,
            self.headers,
            self.bytes_in_the_path,
            self.bytes_in_the_key,
            self.smuggled,
            self.slow,
            self.pipelined,
        )
        return itertools.chain.from_iterable(kind() for kind in kinds)

    def lines(self):
        """Request lines."""
        targets = (
            b"*",
            b"http://other.example" + PATH,
            b"other.example:443",
            b"//" + PATH,
            b"/api/accounts/../accounts/" + NOWHERE.encode(),
            PATH + b"?" + b"a" * 3000,
            PATH + b"#here",
            b"/" + b"a" * LONG,
            b"/\xff\xfe",
            b"",
        )
        for target in targets:
            for method in (b"DELETE", b"OPTIONS", b"CONNECT", b"delete", b"PRI"):
                yield Case(
                    f"{method!r} {target[:40]!r}", (self.request(target, method=method),), REFUSED
                )
        for version in (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.999", b"HTTQ/1.1", b""):
            yield Case(f"{version!r}", (self.request(version=version),), REFUSED)
        for junk in (b"\0" * 100, b"\r\n" * 50, b"\x16\x03\x01\x02\x00\x01", b"DELETE", b" " * 99):
            yield Case(f"junk {junk[:10]!r}", (junk + b"\r\n\r\n",), REFUSED)

    def headers(self):
        """Sizes, counts and forms of headers."""
        odd = (
            b"X: " + b"a" * LONG,
            b"X" * LONG + b": a",
            b"\r\n".join(b"X-%d: a" % n for n in range(500)),
            b"No colon",
            b": no name",
            b"X : space",
            b"X: a\r\n folded",
            b"X: \0",
            b"X: a\nY: b",
            b"X\xff: \xff",
            b"Host: another",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Content-Length: 1_0",
            b"Content-Length: +5",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: chunked, identity",
            b"Expect: 100-continue",
            b"Expect: the unexpected",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
            b"Connection: close, Authorization",
            b"Idempotency-Key: a\r\nIdempotency-Key: b",
            b"Authorization: Bearer another",
            b"X-Request-ID: " + b"a" * 5000,
        )
        for header in odd:
            yield Case(f"header {header[:30]!r}", (self.request(PATH, header),), REFUSED)

    def bytes_in_the_path(self):
        """Every byte, quoted and as it is."""
        for byte in range(256):
            for written in (b"%%%02x" % byte, bytes([byte])):
                target = PATH[:-1] + written
                yield Case(f"path {written!r}", (self.request(target),), REFUSED)

    def bytes_in_the_key(self):
        for byte in range(256):
            for written in (b"%%%02x" % byte, b"k" + bytes([byte]) + b"k"):
                header = b"Idempotency-Key: " + written
                yield Case(f"key {written!r}", (self.request(PATH, header),), REFUSED)

    def smuggled(self):
        """A second request within what is, or may be, the body of the first."""
        inner, size = self._smuggled, len(self._smuggled)
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (size, inner)
        length, short = b"Content-Length: %d" % size, b"Content-Length: 4"
        chunked = b"Transfer-Encoding: chunked"
        bodies = (
            ((length,), inner),
            ((chunked,), chunk),
            ((length, chunked), b"0\r\n\r\n" + inner),
            ((short, chunked), chunk),
            ((short, length), inner),
            ((length, short), inner),
            ((b"Content-Length: 0, %d" % size,), inner),
            ((b"Transfer-Encoding : chunked", length), inner),
            ((b"Transfer-Encoding: xchunked", length), inner),
            ((b"Transfer-Encoding:\x0bchunked", length), inner),
            ((b"transfer-encoding: chunked", b"Transfer-Encoding: identity"), chunk),
            ((b"X: y\nTransfer-Encoding: chunked", length), inner),
            ((b"Content_Length: 0", length), inner),
            ((chunked,), b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (size, inner)),
            ((chunked,), b"0x%x\r\n%s\r\n0\r\n\r\n" % (size, inner)),
            ((chunked,), b"ffffffffffffffff\r\n" + inner),
        )
        for headers, body in bodies:
            name = f"smuggled {headers!r}"
            yield Case(name, (self.request(PATH, *headers) + body,), REFUSED)

    def slow(self):
        """Clients that stop in the middle, and wait or leave."""
        whole = self.request()
        for end in range(0, len(whole), 7):
            yield Case(f"stops after {end} bytes", (whole[:end],), REFUSED)
        in_pieces = tuple(whole[n : n + 20] for n in range(0, len(whole), 20))
        yield Case("in pieces", in_pieces, OURS)
        body = self.request(PATH, b"Content-Length: 100")
        yield Case("half a body", (body, b"a" * 50), REFUSED)

    def pipelined(self):
        """Several requests at once: each is answered, in their order, or the connection ends."""
        for count in (2, 10, 50):
            named = (self.request(PATH, b"X-Request-ID: p-%d" % number) for number in range(count))
            yield Case(f"{count} pipelined", (b"".join(named),), OURS)

    def drawn(self, rng, count):
        """Requests of random parts, most of them nearly right."""
        for _ in range(count):
            target = _mutated(rng, PATH)
            key = b"Idempotency-Key: " + _mutated(rng, b"a-key")
            request = self.request(target, *([key] if rng.random() < 0.5 else []))
            if rng.random() < 0.3:
                request = _mutated(rng, request)
            yield Case(f"drawn {request.replace(self._auth, b'a key')!r}", (request,), REFUSED)


def _mutated(rng, text):
    """Return bytes with a few of them replaced, inserted, doubled or left out."""
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(text) + 1)
        new = bytes(rng.randrange(256) for _ in range(rng.randint(0, 3)))
        text = text[:at] + new + text[at + rng.randint(0, 2) :]
    return text
