"""The HTTP client and answers that were damaged on the way: a seeded mutator of real ones.

What is damaged may be a failure or a success, but success is never made up, the next call gets
its own answer, and every call ends by its clock with a result or an `UpstreamFailed`.
"""

from __future__ import annotations

import gzip
import random
import re
import time

import pytest
from wire import Wire, answer, deadline, hear, upstream

from puffle_accounts.errors import UpstreamFailed

pytestmark = pytest.mark.timeout(100)

MUTANTS = 1500
SECONDS = 0.2  # for a damaged answer, which may never end
GONE = b'{"code": "not_found"}'
JSON = "Content-Type: application/json"
CHUNKED = b"HTTP/1.1 %d x\r\nTransfer-Encoding: chunked\r\n" + JSON.encode() + b"\r\n\r\n"

REAL = [
    answer(200, b'{"object": "AccountDeleted"}', JSON),
    answer(200, b"", JSON),
    answer(200, b"{}", JSON, "Connection: close"),
    answer(200, b'{"a": "' + b"x" * 9000 + b'"}', JSON),
    answer(302, b"", "Location: http://elsewhere.invalid/"),
    answer(401, b"{}", JSON),
    answer(403, b'{"code": "forbidden"}', JSON),
    answer(404, GONE, JSON),
    answer(404, b"<html>nope</html>", "Content-Type: text/html"),
    answer(404, gzip.compress(GONE, mtime=0), JSON, "Content-Encoding: gzip"),
    answer(429, b'{"code": "rate_limit_exceeded"}', JSON, "Retry-After: 30"),
    answer(503, b"oops", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
    b"HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(200, b"{}", JSON),
    b"HTTP/1.1 404 x\r\nServer: x\r\n\r\n" + GONE,
    b"HTTP/1.0 404 x\r\nConnection: keep-alive\r\nContent-Length: 21\r\n\r\n" + GONE,
    CHUNKED % 404 + b"5\r\n" + GONE[:5] + b"\r\n10;ext=1\r\n" + GONE[5:] + b"\r\n0\r\n\r\n",
    CHUNKED % 200 + b"2\r\n{}\r\n0\r\nX-Trailer: y\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"0", b"\r\n ", b"\xff", b"<"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"99999999999", b"-1", b";ext=1", b"{", b"HTTP/1.1 100 Continue\r\n\r\n"),
    answer(200),
]


def cut(data, at, _, __):
    return data[:at]


def leave_out(data, at, to, _):
    return data[:at] + data[to:]


def put_in(data, at, _, chance):
    return data[:at] + chance.choice(PIECES) + data[at:]


def overwrite(data, at, _, chance):
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def say_twice(data, at, to, _):
    return data[:to] + data[at:to] + data[to:]


def swap_case(data, at, to, _):
    return data[:at] + data[at:to].swapcase() + data[to:]


def add(data, _, __, chance):
    return data + chance.choice(PIECES)


def double_a_line(data, _, __, chance):
    head, end, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return b"\r\n".join(lines) + end + body


DAMAGES = [cut, leave_out, put_in, overwrite, say_twice, swap_case, add, double_a_line]


def mutant(number: int) -> tuple[bytes, bool]:
    """Return a damaged answer, the same for the same number, and whether its connection ends."""
    chance = random.Random(number)
    data = chance.choice(REAL)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        most = len(data) if chance.random() < 0.3 else data.find(b"\r\n\r\n") + 4
        at = chance.randrange(min(max(most, 1), len(data) + 1))
        data = chance.choice(DAMAGES)(data, at, at + chance.choice([1, 1, 2, 5, 20]), chance)
    return data, chance.random() < 0.9


def serve(connection, _):
    while request := hear(connection):
        if b"/intact/" in request:
            connection.sendall(answer(418))
            continue
        data, ends = mutant(int(re.search(rb"/damaged/(\d+) ", request)[1]))
        connection.sendall(data)
        if ends:
            break


def result(client, *segments):
    """Return what a delete answers, or the status of its failure."""
    try:
        return client.delete(*segments, tried="thing delete")
    except UpstreamFailed as failed:
        return failed.status


def may_be(outcome, data: bytes) -> bool:
    """Return whether these bytes can be told as this outcome without making anything up."""
    if outcome is True:
        return re.search(rb"(?i)http/\d.\d 2\d\d", data) is not None
    if outcome is False:
        told = b"not_found" in data or b"\x1f\x8b" in data
        return told and re.search(rb"(?i)http/\d.\d 4(04|10)", data) is not None
    return outcome is None or b" %d" % outcome in data


@pytest.mark.slow
def test_no_damaged_answer_makes_up_a_success_outlasts_the_clock_or_answers_the_next_call(
    monkeypatch,
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    outcomes = set()
    with Wire(serve) as wire:
        client = upstream(wire.url)
        for number in range(MUTANTS):
            started = time.monotonic()
            with deadline(SECONDS):
                outcome = result(client, "damaged", str(number))
            assert time.monotonic() - started < SECONDS + 5, mutant(number)
            assert may_be(outcome, mutant(number)[0]), (outcome, mutant(number))
            assert result(client, "intact", "t-1") == 418, mutant(number)
            outcomes.add(outcome)
    assert {True, False, None, 200, 404, 503} <= outcomes, "the mutator reaches every judgement"
